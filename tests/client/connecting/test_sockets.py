"""Sockets that are read into a buffer: bytes, ends, errors, cancellation; on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from flowstream.client.connecting import sockets
from flowstream.client.connecting.sockets import SocketStream

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[SocketStream, socket.socket]]:
    """A stream and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await sockets.connect("127.0.0.1", server.getsockname()[1])
        peer, _ = server.accept()
        peer.setblocking(False)
        with peer:
            yield stream, peer
            await stream.aclose()


class Enough(Exception):
    pass


async def receive(stream: SocketStream, size: int = 100) -> bytes:
    """What one read gives."""
    room = bytearray(size)
    got: list[bytes] = []

    def filled(count: int) -> None:
        got.append(bytes(room[:count]))
        raise Enough

    with anyio.fail_after(5):
        try:
            await stream.receive_all(lambda: memoryview(room), filled)
        except Enough:
            return got[0]


def watched(stream: SocketStream) -> bool:
    """Whether the event loop watched the socket, which it does not from now on."""
    return asyncio.get_running_loop().remove_reader(stream._socket.fileno())


async def test_what_comes_is_written_into_the_room() -> None:
    async with connected() as (stream, peer):
        peer.send(b"hello, world")
        assert await receive(stream, 5) == b"hello"
        assert await receive(stream) == b", world"
        peer.send(b"again")
        assert await stream.receive() == b"again"


async def test_all_that_comes_is_read_until_the_end() -> None:
    room = bytearray(4)
    got = bytearray()
    async with connected() as (stream, peer):
        for part in (b"one, ", b"two, ", b"three"):
            peer.send(part)
        peer.close()
        with pytest.raises(anyio.EndOfStream), anyio.fail_after(5):
            await stream.receive_all(
                lambda: memoryview(room), lambda count: got.extend(room[:count])
            )
    assert got == b"one, two, three"


async def test_what_comes_while_nobody_receives_is_kept_and_costs_nothing() -> None:
    async with connected() as (stream, peer):
        peer.send(b"one")
        assert await receive(stream) == b"one"
        peer.send(b"two")
        assert not watched(stream)  # the loop would spin
        assert await receive(stream) == b"two"


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    async with connected() as (stream, peer):
        with anyio.move_on_after(0.01):
            await receive(stream)
        peer.send(b"later")
        assert not watched(stream)
        assert await receive(stream) == b"later"


@pytest.mark.parametrize("error", [ValueError("bad"), StopIteration(), SystemExit(1)])
async def test_what_the_reader_raises_ends_the_receive(error: BaseException) -> None:
    def filled(count: int) -> None:
        raise error

    async with connected() as (stream, peer):
        peer.send(b"x")
        room = memoryview(bytearray(10))
        expected = RuntimeError if isinstance(error, StopIteration) else type(error)
        with pytest.raises(expected), anyio.fail_after(5):
            await stream.receive_all(lambda: room, filled)
        assert not watched(stream)


async def test_the_end_of_the_stream_and_a_reset_are_told_apart() -> None:
    async with connected() as (stream, peer):
        peer.send(b"last")
        peer.close()
        assert await receive(stream) == b"last"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await receive(stream)
    async with connected() as (stream, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await receive(stream)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")


async def test_closing_ends_whoever_waits() -> None:
    ended: list[str] = []

    async def wait(what: str) -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await (receive(stream) if what == "receive" else stream.send(bytes(1 << 26)))
        ended.append(what)

    async with connected() as (stream, _):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(wait, "receive")
                group.start_soon(wait, "send")
                await anyio.wait_all_tasks_blocked()
                await stream.aclose()
        assert sorted(ended) == ["receive", "send"]
        with pytest.raises(anyio.ClosedResourceError):
            await receive(stream)
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")


async def test_two_cannot_receive_at_once() -> None:
    async with connected() as (stream, peer), anyio.create_task_group() as group:
        group.start_soon(receive, stream)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await receive(stream)
        peer.send(b"x")


async def test_more_than_the_socket_takes_is_sent_as_it_is_read() -> None:
    whole = bytes(range(256)) * (1 << 16)
    got = bytearray()

    async def read() -> None:
        while len(got) < len(whole):
            await anyio.wait_readable(peer)
            got.extend(peer.recv(1 << 20))

    async with connected() as (stream, peer):
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await stream.send(whole)
        assert got == whole


async def test_forced_closing_closes_at_once() -> None:
    async with connected() as (stream, peer):
        await anyio.aclose_forcefully(stream)
        with anyio.fail_after(5):
            await anyio.wait_readable(peer)
        assert peer.recv(1) == b""


async def test_the_next_address_is_tried_where_one_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", each.getsockname())
            for each in (refusing, server)
        ]

        async def addresses(*_: object, **__: object) -> object:
            return found

        monkeypatch.setattr(anyio, "getaddrinfo", addresses)
        stream = await sockets.connect("host", 1)
        peer, _ = server.accept()
        with peer:
            await stream.aclose()
        del found[1]
        with pytest.raises(ConnectionRefusedError):
            await sockets.connect("host", 1)


def test_trio_has_its_own_streams() -> None:
    async def asked() -> bool:
        return sockets.on_asyncio()

    assert anyio.run(asked)
    assert not anyio.run(asked, backend="trio")
