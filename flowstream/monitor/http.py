"""A small HTTP/1.1 server: h11 implements the protocol, anyio the sockets; everything is bounded.

It serves at most `MAX_CONNECTIONS` at a time (further ones are closed at once), and accepts
`MAX_HEAD` bytes of request line and headers and `MAX_BODY` bytes of body. A request must arrive
within `READ_TIMEOUT` seconds, which also closes idle connections; a response must be sent within
`WRITE_TIMEOUT`. An exception of a handler becomes a response 500 and one log record; it never ends
the server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import anyio
import h11
from anyio.abc import ByteStream, SocketAttribute, TaskStatus

from flowstream.texts import printable

MAX_CONNECTIONS = 64
MAX_HEAD = 16 * 1024
MAX_BODY = 16 * 1024
READ_TIMEOUT = 15.0
WRITE_TIMEOUT = 15.0

_log = logging.getLogger("flowstream.monitor")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case, and `path` has no query.

    `peer` is the address of the client, and "" if it is unknown.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """One response. The server adds the length and security headers."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]

_SECURITY = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class _Refused(Exception):
    """The response is `status`, and the connection is closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


async def serve(
    handler: Handler,
    host: str,
    port: int,
    *,
    task_status: TaskStatus[tuple[str, int]] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests on `host`:`port` (0 is any free port) until cancelled.

    `task_group.start` returns the address that it listens on. Raises OSError if that is in use.
    """
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    async with listener:
        address = listener.extra(SocketAttribute.local_address)  # noqa: S610 - no Django here
        task_status.started((str(address[0]), int(address[1])))
        slots = anyio.Semaphore(MAX_CONNECTIONS)

        async def accept(stream: ByteStream) -> None:
            try:
                slots.acquire_nowait()
            except anyio.WouldBlock:
                await anyio.aclose_forcefully(stream)
                return
            try:
                await _Connection(stream, handler).run()
            finally:
                slots.release()

        await listener.serve(accept)


class _Connection:
    """One connection: its requests are answered one after the other."""

    def __init__(self, stream: ByteStream, handler: Handler) -> None:
        self._stream = stream
        self._handler = handler
        self._peer = _peer(stream)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def run(self) -> None:
        """Serve until the client disconnects, is too slow, or violates the protocol."""
        try:
            while await self._exchange():
                self._http.start_next_cycle()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
            pass  # the client has disconnected or is too slow: it cannot receive an error
        finally:
            await anyio.aclose_forcefully(self._stream)

    async def _exchange(self) -> bool:
        """Answer one request. False: the connection is to be closed."""
        try:
            with anyio.fail_after(READ_TIMEOUT):
                request = await self._read()
        except h11.RemoteProtocolError as error:
            await self._write(_plain(HTTPStatus(error.error_status_hint)), head=False)
            return False
        except _Refused as refused:
            await self._write(_plain(refused.status), head=False)
            return False
        if request is None:
            return False
        response = await self._answer(request)
        await self._write(response, head=request.method == "HEAD")
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Exception as error:
            _log.error("%s %s failed", request.method, request.path, exc_info=printable(error))
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._stream.send(self._http.send(go_on) or b"")
            try:
                self._http.receive_data(await self._stream.receive(MAX_HEAD))
            except anyio.EndOfStream:
                self._http.receive_data(b"")

    async def _read(self) -> Request | None:
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        target = urlsplit(head.target.decode("ascii"))
        return Request(
            head.method.decode("ascii"),
            target.path,
            dict(parse_qsl(target.query, keep_blank_values=True)),
            {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            bytes(body),
            self._peer,
        )

    async def _write(self, response: Response, *, head: bool) -> None:
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            *_SECURITY,
            *response.headers.items(),
        ]
        data = self._http.send(h11.Response(status_code=response.status, headers=headers)) or b""
        if not head:
            data += self._http.send(h11.Data(data=response.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        with anyio.fail_after(WRITE_TIMEOUT):
            await self._stream.send(data)


def _peer(stream: ByteStream) -> str:
    try:
        address = stream.extra(SocketAttribute.remote_address)  # noqa: S610 - no Django here
    except (OSError, anyio.TypedAttributeLookupError):
        return ""  # already disconnected
    return str(address[0]) if isinstance(address, tuple) else ""


def _plain(status: HTTPStatus) -> Response:
    return Response(status, f"{status.value} {status.phrase}\n".encode())
