"""One connection to one broker: the loop or a task reads, a task writes, one sends heartbeats.

All decisions are synchronous: `_dispatch` handles what is received, `_collect` chooses what is
sent. A request waits for the answer with its correlation id. Publishers do not queue frames here:
they announce that they have some (`want_write`) and are asked for them (`fill`) when the socket
accepts more. So a slow socket leads to larger frames, not to longer queues.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from flowstream.errors import (
    SERVER_ERRORS,
    ConnectionClosed,
    LocalProtocolError,
    ProtocolError,
    RequestTimeout,
    server_error,
)
from flowstream.protocol import (
    OK,
    Address,
    Close,
    Code,
    Command,
    Connection,
    ConsumerUpdate,
    ConsumerUpdateResponse,
    CreditError,
    Deliver,
    Heartbeat,
    Key,
    MetadataUpdate,
    OffsetSpec,
    PublishConfirm,
    PublishError,
    Response,
    Role,
    State,
    Tune,
)
from flowstream.signals import Signal, loop_clock

from .settings import Settings, log
from .sockets import SocketStream
from .tasks import TaskOwner
from .transport import STREAM_ERRORS
from .users import IdAllocator, PublisherUser, SubscriptionUser

READ_SIZE = 1 << 20
WRITE_SIZE = 1 << 19
"""Bytes that one write collects from publishers: a slow socket gets larger frames."""
CONTROL_LIMIT = 1 << 20
"""Bytes of commands that may wait to be written before `drained` makes a caller wait."""
BLOCKED_AFTER = 1.0
"""Seconds without progress of a write after which the connection gets no new users."""
CLOSED_ON_REQUEST = "the connection was closed on request"
T = TypeVar("T")


def raise_for_code(
    code: int, action: str, *, stream: str | None = None, reference: str | None = None
) -> None:
    """Raises the exception of a response code ("cannot <action>: ..."); code OK returns."""
    if code == OK:
        return
    message = f"cannot {action}: {reason_of(code)}"
    raise server_error(code, message, stream=stream, reference=reference)


def reason_of(code: int) -> str:
    """What a response code means, as the second half of a sentence."""
    cls = SERVER_ERRORS.get(code)
    text = (cls.__doc__ or "").strip() if cls else f"the server answered with code {code}"
    return text[:1].lower() + text[1:].rstrip(".")


class _Request:
    __slots__ = ("answered", "response")

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.response: Any = None


class ClientConnection:
    """A connection to one broker; `handshake.open_connection` creates and authenticates it."""

    def __init__(self, stream: ByteStream, address: Address, role: str, settings: Settings) -> None:
        self.address = address
        self.role = role
        self.wire: Final = Connection(
            Role.CLIENT, frame_max=settings.frame_max, heartbeat=settings.heartbeat
        )
        self.publishers: IdAllocator[PublisherUser] = IdAllocator(settings.per_connection)
        self.subscriptions: IdAllocator[SubscriptionUser] = IdAllocator(settings.per_connection)
        self.tuned: Final = anyio.Event()
        self.lost: Final = anyio.Event()
        self.error: ConnectionClosed | None = None
        self._stream = stream
        self._settings = settings
        self._scope = anyio.CancelScope()
        self._requests: dict[int, _Request] = {}
        self._correlation = 0
        self._control: list[bytes] = []
        self._control_size = 0
        self._writers: dict[PublisherUser, None] = {}
        self._wake = Signal()
        self._written = Signal()
        self._sending = 0
        self._sending_since: float | None = None
        self._unanswered = False
        self._closing = False
        self._clock = loop_clock()
        self._received_at = self._sent_at = self._clock()
        self._on_lost: list[Callable[[ClientConnection], None]] = []

    def __repr__(self) -> str:
        state = "closed" if self.error else self.wire.state.name.lower()
        return f"<connection {self.role} {self.address} {state}>"

    # --- state ----------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return self.error is None and self.wire.state is State.RUNNING

    @property
    def lost_unasked(self) -> bool:
        """Whether it has ended, but not because this side wanted it."""
        return self.error is not None and self.error.cause != "request"

    @property
    def blocked(self) -> bool:
        """Whether the broker seems to hang: a write makes no progress, or a request timed out.

        New publishers and consumers are then placed on another connection.
        """
        since = self._sending_since
        stuck = since is not None and self._clock() - since > BLOCKED_AFTER
        return stuck or self._unanswered

    @property
    def frame_max(self) -> int:
        return self.wire.frame_max

    def supports(self, key: Key, version: int = 1) -> bool:
        return self.wire.supports(key, version)

    def statistics(self) -> dict[str, int]:
        return {
            "publishers": len(self.publishers),
            "subscriptions": len(self.subscriptions),
            "requests": len(self._requests),
            "bytes_to_write": self._control_size + self._sending,
        }

    def when_lost(self, callback: Callable[[ClientConnection], None]) -> None:
        """Calls back when the connection ends, or now if it has ended."""
        if self.error is not None:
            callback(self)
        self._on_lost.append(callback)

    # --- requests -------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Queues a command; raises ConnectionClosed if the connection has ended or is closing."""
        if self.error is not None:
            raise ConnectionClosed(str(self.error))
        if self.wire.state in (State.CLOSING, State.CLOSED):
            raise ConnectionClosed(f"the connection to {self._where} is being closed")
        self._queue(command)

    def _queue(self, command: Command) -> None:
        data = self.wire.send(command)
        self._control.append(data)
        self._control_size += len(data)
        self._wake.notify()

    async def drained(self) -> None:
        """Returns once fewer than CONTROL_LIMIT bytes of commands wait to be written."""
        while self._control_size + self._sending > CONTROL_LIMIT and self.error is None:
            await self._written.wait()

    async def request(
        self, make: Callable[[int], Command], expect: type[T], timeout: float | None = None
    ) -> T:
        """Sends `make(correlation id)` and returns the answer.

        Raises RequestTimeout, ConnectionClosed, or ProtocolError if the answer has another type.
        An answer that arrives after the timeout is dropped.
        """
        self._correlation = correlation = (self._correlation + 1) & 0x7FFFFFFF
        command = make(correlation)
        waiting = self._requests[correlation] = _Request()
        seconds = timeout or self._settings.request_timeout
        try:
            self.send(command)
            with anyio.fail_after(seconds):
                await waiting.answered.wait()
        except TimeoutError:
            self._unanswered = True
            raise RequestTimeout(
                f"{self._where} did not answer {type(command).__name__} within {seconds:g} s"
            ) from None
        finally:
            del self._requests[correlation]
        if waiting.response is None:
            raise ConnectionClosed(str(self.error)) from self.error
        if not isinstance(waiting.response, expect):
            raise ProtocolError(
                f"{self._where} answered {type(command).__name__} with "
                f"{type(waiting.response).__name__}"
            )
        return waiting.response

    def want_write(self, publisher: PublisherUser) -> None:
        """Asks for a call of `publisher.fill` as soon as the socket accepts more."""
        self._writers[publisher] = None
        self._wake.notify()

    def answer_update(self, correlation_id: int, offset: OffsetSpec) -> None:
        """Answers an update of a single active consumer.

        An update may arrive between this side's Close and the answer to it. It gets none: the
        broker gives up the consumers of the connection, and waits for nothing from it.
        """
        if self.usable:
            self.send(ConsumerUpdateResponse(correlation_id, Code.OK, offset))

    # --- tasks ----------------------------------------------------------------------------------

    def start(self, owner: TaskOwner) -> None:
        name = f"{self.role} connection to {self.address}"
        owner.spawn(self._run, name=name)

    async def _run(self) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for loop in (self._read, self._write, self._beat):
                        group.start_soon(self._guarded, loop)
        finally:
            self.abort(f"the connection to {self._where} was closed", "request")
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
            self.lost.set()

    async def _guarded(self, loop: Callable[[], Any]) -> None:
        try:
            await loop()
        except ConnectionClosed:
            pass  # what this loop had to send came after Close
        except STREAM_ERRORS as error:
            if self._closing:  # the broker answers Close, and ends the connection at once
                self.abort(CLOSED_ON_REQUEST, "request")
                return
            detail = f" ({error})" if str(error) else ""
            self.abort(f"{self._where} closed the connection{detail}", "network")
        except LocalProtocolError:
            raise
        except ProtocolError as error:
            self.abort(f"{self._where} violated the protocol: {error}", "protocol")

    async def _read(self) -> None:
        if isinstance(self._stream, SocketStream):
            await self._stream.receive_all(self.wire.room, self._filled)
        while True:
            self._received(self.wire.receive, await self._stream.receive(READ_SIZE))

    def _filled(self, count: int) -> None:
        self._received(self.wire.filled, count)

    def _received(self, commands_of: Callable[[T], list[Command]], what: T) -> None:
        """Handles the commands that are complete now."""
        self._received_at = self._clock()
        try:
            commands = commands_of(what)
        except ProtocolError as error:
            with suppress(ConnectionClosed):  # the protocol is over: they cannot be answered
                for command in error.preceding:
                    self._dispatch(command)
            raise
        for command in commands:
            self._dispatch(command)

    async def _write(self) -> None:
        while True:
            while not (buffers := self._collect()):
                await self._wake.wait()
            self._sending = sum(map(len, buffers))
            self._sending_since = self._clock()
            await self._stream.send(buffers[0] if len(buffers) == 1 else b"".join(buffers))
            self._sending_since = None
            self._sending = 0
            self._sent_at = self._clock()
            self._written.notify()
            if self.error is not None and not self._control:  # the answer to its Close was sent
                self._scope.cancel()
            if self._control or self._writers:  # a send that is taken at once does not yield
                await anyio.lowlevel.checkpoint()

    def _collect(self) -> list[bytes]:
        buffers, size = self._control, self._control_size
        self._control, self._control_size = [], 0
        for publisher in tuple(self._writers):
            if size >= WRITE_SIZE:
                break
            del self._writers[publisher]
            before = len(buffers)
            if publisher.fill(buffers, WRITE_SIZE - size):
                self._writers[publisher] = None
            size += sum(map(len, buffers[before:]))
        return buffers

    async def _beat(self) -> None:
        """Sends heartbeats while nothing else is sent, and ends a connection that is silent."""
        await self.tuned.wait()
        interval = self.wire.heartbeat
        if interval == 0:
            return
        while True:
            await anyio.sleep(interval / 2)
            now = self._clock()
            if now - self._received_at > 2 * interval:
                silent = f"{self._where} sent nothing for {2 * interval} s (missed heartbeats)"
                self.abort(silent, "heartbeat")
            elif now - self._sent_at >= interval / 2 and not self._control:
                self.send(Heartbeat())

    # --- receiving ------------------------------------------------------------------------------

    def _dispatch(self, command: object) -> None:
        handler = _HANDLERS.get(type(command))
        if handler is not None:
            handler(self, command)
            return
        self._unanswered = False
        waiting = self._requests.get(getattr(command, "correlation_id", -1))
        if waiting is not None:
            waiting.response = command
            waiting.answered.set()

    def _on_deliver(self, command: Deliver) -> None:
        user = self.subscriptions.get(command.subscription_id)
        if user is not None:
            user.delivered(command)

    def _on_confirm(self, command: PublishConfirm) -> None:
        user = self.publishers.get(command.publisher_id)
        if user is not None:
            user.confirmed(command.publishing_ids)

    def _on_publish_error(self, command: PublishError) -> None:
        user = self.publishers.get(command.publisher_id)
        if user is not None:
            user.refused(command.errors)

    def _on_credit_error(self, command: CreditError) -> None:
        user = self.subscriptions.get(command.subscription_id)
        if user is not None:
            user.credit_refused(command.code)

    def _on_metadata_update(self, command: MetadataUpdate) -> None:
        for ids in (self.publishers, self.subscriptions):
            for user in ids.users():
                if user.stream == command.stream:
                    user.metadata_changed(command.code)

    def _on_consumer_update(self, command: ConsumerUpdate) -> None:
        user = self.subscriptions.get(command.subscription_id)
        if user is not None:
            user.update(command.correlation_id, command.active)
        else:
            self.answer_update(command.correlation_id, OffsetSpec.none())

    def _on_tune(self, command: Tune) -> None:
        self.send(Tune(self.wire.frame_max, self.wire.heartbeat))
        self.tuned.set()

    def _on_close(self, command: Close) -> None:
        if self.wire.state is State.CLOSING:
            self._queue(Response(Key.CLOSE, command.correlation_id, Code.OK))
        reason = f"{self._where} closed the connection: {command.reason} (code {command.code})"
        self._fail(ConnectionClosed(reason, cause="broker"))

    def _on_heartbeat(self, command: Heartbeat) -> None:
        """Nothing to do: `_received` has noted the time, which all received bytes count for."""

    # --- the end --------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return str(self.address)

    def _fail(self, error: ConnectionClosed) -> None:
        """Ends all requests and informs all users, once: later errors follow from the first one."""
        if self.error is not None:
            return
        self.error = error
        for waiting in self._requests.values():
            waiting.answered.set()
        self.tuned.set()
        self._written.notify()
        for callback in self._on_lost:
            callback(self)
        for ids in (self.publishers, self.subscriptions):
            for user in ids.users():
                user.connection_lost(error)

    def abort(self, reason: str, cause: str) -> None:
        """Ends the connection now, without Close; for `cause` see ConnectionClosed."""
        self._fail(ConnectionClosed(reason, cause=cause))
        self._scope.cancel()

    async def close(self) -> None:
        """Sends Close, waits for the answer at most `close_timeout`, and ends the connection."""
        with anyio.CancelScope(shield=True):
            if self.usable:
                self._closing = True
                with anyio.move_on_after(self._settings.close_timeout):
                    try:
                        await self.request(
                            lambda c: Close(c, Code.OK, "closed by the client"), Response
                        )
                    except (ConnectionClosed, RequestTimeout) as error:
                        log.debug("closing %r: %s", self, error)
            self.abort(CLOSED_ON_REQUEST, "request")
            await self.lost.wait()


_HANDLERS: dict[type, Callable[[ClientConnection, Any], None]] = {
    Deliver: ClientConnection._on_deliver,
    PublishConfirm: ClientConnection._on_confirm,
    PublishError: ClientConnection._on_publish_error,
    CreditError: ClientConnection._on_credit_error,
    MetadataUpdate: ClientConnection._on_metadata_update,
    ConsumerUpdate: ClientConnection._on_consumer_update,
    Tune: ClientConnection._on_tune,
    Close: ClientConnection._on_close,
    Heartbeat: ClientConnection._on_heartbeat,
}
