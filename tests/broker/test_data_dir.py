"""A data folder says which broker has it and where that listens, as long as it does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio.to_thread
import pytest

from flowstream.broker import Broker, LocalBroker, find_local_broker
from flowstream.broker.data_dir import ADDRESS_FILE, LOCK_FILE, DataDirStore
from flowstream.errors import ConfigurationError


async def there(folder: Path) -> LocalBroker | None:
    return await anyio.to_thread.run_sync(find_local_broker, folder)


async def test_while_a_broker_runs_and_no_longer(tmp_path: Path) -> None:
    assert await there(tmp_path) is None
    async with Broker(port=0, data=tmp_path) as broker:
        found = await there(tmp_path)
        assert found is not None
        assert (found.process, found.url) == (os.getpid(), broker.url)
    assert await there(tmp_path) is None
    assert not (tmp_path / ADDRESS_FILE).exists()


@pytest.mark.parametrize(("host", "users"), [("127.0.0.1", {"app": "secret"})])
async def test_an_address_that_is_not_enough_is_not_announced(
    tmp_path: Path, host: str, users: dict[str, str]
) -> None:
    async with Broker(host, port=0, data=tmp_path, users=users):
        assert await there(tmp_path) is None
        assert not (tmp_path / ADDRESS_FILE).exists()


async def test_one_that_listens_everywhere_is_on_localhost(tmp_path: Path) -> None:
    async with Broker("", port=0, data=tmp_path) as broker:
        found = await there(tmp_path)
        assert found is not None
        assert str(found.address) == f"localhost:{broker.port}"


async def test_what_a_broker_that_was_killed_has_left_is_ignored(tmp_path: Path) -> None:
    stale = json.dumps({"process": 1, "host": "127.0.0.1", "port": 9})
    (tmp_path / ADDRESS_FILE).write_text(stale)
    assert await there(tmp_path) is None
    (tmp_path / LOCK_FILE).touch()
    assert await there(tmp_path) is None
    async with Broker(port=0, data=tmp_path) as broker:
        found = await there(tmp_path)
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
        assert await there(tmp_path) is None


async def test_one_that_finds_the_folder_taken_leaves_the_address(tmp_path: Path) -> None:
    async with Broker(port=0, data=tmp_path):
        with pytest.raises(ConfigurationError, match="in use by another broker"):
            await anyio.to_thread.run_sync(DataDirStore, tmp_path)
        assert await there(tmp_path) is not None
