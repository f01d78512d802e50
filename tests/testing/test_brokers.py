"""The embedded broker in a test's event loop, and in a thread."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import pytest

from flowstream.errors import ConfigurationError
from flowstream.testing import broker, broker_in_thread


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_in_the_loop(tmp_path: Path) -> None:
    async with broker() as one, broker(data=tmp_path) as two:
        assert one.port != two.port
        for running in (one, two):
            async with await anyio.connect_tcp("127.0.0.1", running.port):
                pass
    with pytest.raises(OSError, match=r"refused|failed"):
        await anyio.connect_tcp("127.0.0.1", one.port)


def test_in_a_thread() -> None:
    with broker_in_thread() as running:
        socket.create_connection(("127.0.0.1", running.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=5)


class Mine(Exception):
    """What a test raises."""


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_what_a_test_raises_leaves_the_loop_s_broker_as_it_is() -> None:
    with pytest.raises(Mine):
        async with broker():
            raise Mine
    with anyio.move_on_after(0) as scope:
        async with broker():
            await anyio.sleep_forever()
    assert scope.cancelled_caught


def test_what_a_test_raises_leaves_the_thread_s_broker_as_it_is() -> None:
    with pytest.raises(Mine), broker_in_thread():
        raise Mine


@pytest.mark.medium
def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        broker_in_thread(data=str(tmp_path)),
        pytest.raises(ConfigurationError, match="is in use"),
        broker_in_thread(data=str(tmp_path)),
    ):
        raise AssertionError("unreachable")
