"""While a broker runs on a data directory, programs of the same machine find its address there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio.to_thread
import pytest

from flowstream.broker import Broker, LocalBroker, find_local_broker
from flowstream.broker.data_dir import ADDRESS_FILE, LOCK_FILE, STORE_FILE, DataDirStore
from flowstream.errors import ConfigurationError


async def found_in(data_dir: Path) -> LocalBroker | None:
    return await anyio.to_thread.run_sync(find_local_broker, data_dir)


async def test_a_broker_is_found_while_it_runs(tmp_path: Path) -> None:
    assert await found_in(tmp_path) is None
    async with Broker(port=0, data=tmp_path) as broker:
        found = await found_in(tmp_path)
        assert found is not None
        assert (found.process, found.url) == (os.getpid(), broker.url)
    assert await found_in(tmp_path) is None
    assert not (tmp_path / ADDRESS_FILE).exists()


@pytest.mark.parametrize(("host", "users"), [("127.0.0.1", {"app": "secret"})])
async def test_a_broker_with_its_own_users_is_not_found(
    tmp_path: Path, host: str, users: dict[str, str]
) -> None:
    async with Broker(host, port=0, data=tmp_path, users=users):
        assert await found_in(tmp_path) is None
        assert not (tmp_path / ADDRESS_FILE).exists()


async def test_a_broker_on_all_interfaces_is_found_on_localhost(tmp_path: Path) -> None:
    async with Broker("", port=0, data=tmp_path) as broker:
        found = await found_in(tmp_path)
        assert found is not None
        assert str(found.address) == f"localhost:{broker.port}"


async def test_the_address_of_a_killed_broker_is_ignored(tmp_path: Path) -> None:
    stale = json.dumps({"process": 1, "host": "127.0.0.1", "port": 9})
    (tmp_path / ADDRESS_FILE).write_text(stale)
    assert await found_in(tmp_path) is None
    (tmp_path / LOCK_FILE).touch()
    assert await found_in(tmp_path) is None
    async with Broker(port=0, data=tmp_path) as broker:
        found = await found_in(tmp_path)
        assert found is not None
        assert found.address.port == broker.port


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "7", '"x"', "{}", "[" * 5000, "\x00\xff",
        '{"process": 1, "host": "127.0.0.1", "port": 0}',
        '{"process": 1, "host": "127.0.0.1", "port": 70000}',
        '{"process": 1, "host": "127.0.0.1", "port": true}',
        '{"process": "1", "host": "127.0.0.1", "port": 9}',
        '{"process": 1, "host": "example.com", "port": 9}',
        '{"process": 1, "host": "10.0.0.1", "port": 9}',
        '{"process": 1, "host": null, "port": 9}',
        '{"process": 1, "host": "guest:x@127.0.0.1", "port": 9}',
    ],
)  # fmt: skip
async def test_nothing_in_the_file_is_trusted(tmp_path: Path, text: str) -> None:
    async with Broker(port=0, data=tmp_path):
        await anyio.Path(tmp_path / ADDRESS_FILE).write_text(text)
        assert await found_in(tmp_path) is None


@pytest.mark.medium
async def test_a_broker_that_is_refused_leaves_the_address_of_the_other(tmp_path: Path) -> None:
    async with Broker(port=0, data=tmp_path):
        with pytest.raises(ConfigurationError, match="in use by another broker"):
            await anyio.to_thread.run_sync(DataDirStore, tmp_path)
        assert await found_in(tmp_path) is not None


@pytest.mark.parametrize("name", [LOCK_FILE, ADDRESS_FILE, STORE_FILE])
async def test_a_directory_in_the_place_of_a_file_is_an_error_that_names_it(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name / "x").mkdir(parents=True)
    for _ in range(2):  # the second one finds the lock free
        with pytest.raises(ConfigurationError, match="choose another data directory") as raised:
            await Broker(port=0, data=tmp_path).serve()
        assert str(tmp_path) in str(raised.value)
