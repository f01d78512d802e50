"""The HTTP server: what it answers, what it refuses, and that nothing takes it down."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import ByteStream

from flowstream.monitor import http
from flowstream.monitor.http import Request, Response, serve

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]


async def echo(request: Request) -> Response:
    if request.path == "/boom":
        raise RuntimeError("boom")
    text = f"{request.method} {request.path} {dict(request.query)} {request.body.decode()}"
    return Response(body=text.encode())


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[int]:
    async with anyio.create_task_group() as group:
        _, port = await group.start(serve, echo, "127.0.0.1", 0)
        yield port
        group.cancel_scope.cancel()


async def read_all(stream: ByteStream) -> bytes:
    data = b""
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            data += await stream.receive()
    return data


async def exchange(port: int, data: bytes) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(data)
        return await read_all(stream)


def get(path: str, method: str = "GET", more: str = "connection: close\r\n") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n".encode()


async def test_a_request_is_answered() -> None:
    async with server() as port:
        answer = await exchange(port, get("/a/b?c=d&e="))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"x-content-type-options: nosniff" in head
    assert body == b"GET /a/b {'c': 'd', 'e': ''} "


async def test_two_requests_share_a_connection_even_byte_by_byte() -> None:
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        for byte in get("/one", more="") + get("/two"):
            await stream.send(bytes([byte]))
        answer = await read_all(stream)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"GET /one {} " in answer
    assert answer.endswith(b"GET /two {} ")


async def test_a_body_is_read() -> None:
    more = "content-length: 5\r\nconnection: close\r\n"
    async with server() as port:
        answer = await exchange(port, get("/", "POST", more) + b"hello")
    assert answer.endswith(b"POST / {} hello")


async def test_head_has_no_body() -> None:
    async with server() as port:
        answer = await exchange(port, get("/", "HEAD"))
    assert b"content-length: 10" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_failing_handler_is_a_500_and_the_server_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with server() as port:
        assert (await exchange(port, get("/boom"))).startswith(b"HTTP/1.1 500")
        assert (await exchange(port, get("/"))).startswith(b"HTTP/1.1 200")
    assert "GET /boom failed" in caplog.text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000, 431),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n" + b"z" * 20_000, 413),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
    ],
)
async def test_what_breaks_the_protocol_or_a_bound_is_refused(data: bytes, status: int) -> None:
    async with server() as port:
        answer = await exchange(port, data)
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        assert (await exchange(port, get("/"))).startswith(b"HTTP/1.1 200")


async def test_a_silent_client_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.05)
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET / HT")
        assert await read_all(stream) == b""


async def test_too_many_connections_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 1)
    async with server() as port, await anyio.connect_tcp("127.0.0.1", port) as first:
        await first.send(get("/", more=""))
        assert (await first.receive()).startswith(b"HTTP/1.1 200")
        assert await exchange(port, b"") == b""
