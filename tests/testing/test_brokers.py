"""The embedded broker in a test's event loop, and in a thread."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import pytest

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
