"""Publishes to one stream: bounded, confirmed, in order, across reconnects.

What is sent goes into the unconfirmed log at once and stays there until the broker has confirmed
it. The connection's writer takes entries from the log when the socket accepts more; after a loss
the log is rewound and everything unconfirmed is sent again, with its ids, before anything new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import anyio
import anyio.lowlevel

from flowstream.errors import (
    SERVER_ERRORS,
    ConfigurationError,
    ConnectionClosed,
    FlowstreamError,
    NotSupported,
    PublishFailed,
    RequestTimeout,
)
from flowstream.protocol import (
    Code,
    DeclarePublisher,
    DeletePublisher,
    Key,
    QueryPublisherSequence,
    QueryPublisherSequenceResponse,
    Response,
)
from flowstream.telemetry import Confirmed, Published

from .attachment import Attachment
from .codes import check
from .connection import PublisherUser
from .core import Core
from .outbox import Outbox, size_of
from .pool import Place
from .settings import log
from .states import State, StateCell
from .tasks import Task
from .unconfirmed import Entry, Waiter


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """How a publisher behaves; checked when it is made.

    `max_unconfirmed` (messages) and `max_unconfirmed_bytes` bound what was accepted and is not
    confirmed; beyond them sending waits. A message that was not confirmed `confirm_timeout`
    seconds after it was accepted fails (None: it is tried for as long as the publisher lives).
    """

    reference: str | None = None
    max_unconfirmed: int = 10_000
    max_unconfirmed_bytes: int = 64 * 1024 * 1024
    confirm_timeout: float | None = 30.0
    filter_value: Callable[[bytes], str | None] | None = None
    on_confirm: Callable[[Sequence[int]], None] | None = None
    on_error: Callable[[Sequence[int], PublishFailed], None] | None = None

    def __post_init__(self) -> None:
        if self.reference is not None and not 0 < len(self.reference.encode()) <= 255:
            raise ConfigurationError("reference must have 1 to 255 bytes")
        if self.max_unconfirmed < 1:
            raise ConfigurationError("max_unconfirmed must be at least 1 message")
        if self.max_unconfirmed_bytes < 1:
            raise ConfigurationError("max_unconfirmed_bytes must be at least 1 byte")
        if self.confirm_timeout is not None and self.confirm_timeout <= 0:
            raise ConfigurationError("confirm_timeout must be more than 0 seconds, or None")


class Publisher:
    """`async with env.publisher("orders") as publisher: await publisher.send(b"...")`."""

    def __init__(self, core: Core, stream: str, options: PublisherOptions) -> None:
        self.stream = stream
        self.options = options
        self._core = core
        self._out = Outbox(
            stream, options.max_unconfirmed, options.max_unconfirmed_bytes, core.settings.frame_max
        )
        self._place: Place[PublisherUser] | None = None
        self._former: Place[PublisherUser] | None = None
        self._sequence: int | None = None
        self._progress: anyio.Event | None = None
        self._failure: PublishFailed | None = None
        self._failed = 0
        self._state = StateCell("publisher", stream, core.telemetry)
        self._attachment = Attachment(
            self._state,
            core.settings,
            attach=self._attach,
            detach=self._detach,
            gave_up=self._gave_up,
        )
        self._tasks: list[Task] = []

    def __repr__(self) -> str:
        return f"<publisher of {self.stream!r} {self.state.value}>"

    # --- state ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state.value

    async def wait_for(self, *states: State) -> State:
        """Returns once the publisher is in one of these states."""
        return await self._state.wait(*states)

    @property
    def last_publishing_id(self) -> int | None:
        """The highest id the broker had of this reference at the start; None without reference.

        0 can also mean that the broker has none.
        """
        return self._sequence

    @property
    def unconfirmed(self) -> int:
        return self._out.log.messages

    def statistics(self) -> dict[str, int]:
        return {
            "unconfirmed": self._out.log.messages,
            "unconfirmed_bytes": self._out.log.bytes,
            "max_unconfirmed": self.options.max_unconfirmed,
            "max_unconfirmed_bytes": self.options.max_unconfirmed_bytes,
            "next_publishing_id": self._out.next_id,
            "recoveries": self._attachment.recoveries,
        }

    # --- sending --------------------------------------------------------------------------------

    async def send(
        self, body: bytes, *, publishing_id: int | None = None, filter_value: str | None = None
    ) -> None:
        """Accepts one message; waits only while the window is full.

        Raises MessageTooLarge, or why the publisher was given up. A refusal by the broker is
        told to `on_error`, or raised by the next `flush`.
        """
        if publishing_id is not None or filter_value is not None or self.options.filter_value:
            await self._accept_one(body, publishing_id, filter_value, None)
            return
        size = len(body) + 12
        out = self._out
        if self._state.value is State.CLOSED or not out.has_room(1, size):
            await self._room(1, size)
        out.check_size(size)
        first = not out.log.queued
        if out.add(body, size, anyio.current_time()):
            await anyio.lowlevel.cancel_shielded_checkpoint()
        elif first:
            self._want_write()

    async def publish(
        self, body: bytes, *, publishing_id: int | None = None, filter_value: str | None = None
    ) -> int:
        """Sends one message and returns its publishing id once it is confirmed.

        Raises PublishFailed where the broker refused it or did not confirm in time.
        """
        waiter = Waiter(1)
        number = await self._accept_one(body, publishing_id, filter_value, waiter)
        await self._settled(waiter)
        return number

    async def send_many(
        self,
        bodies: Sequence[bytes],
        *,
        publishing_ids: Sequence[int] | None = None,
        filter_values: Sequence[str | None] | None = None,
    ) -> None:
        """Accepts messages in bulk, the fast way; otherwise as `send`."""
        await self._accept_many(bodies, publishing_ids, filter_values, None)

    async def publish_many(
        self,
        bodies: Sequence[bytes],
        *,
        publishing_ids: Sequence[int] | None = None,
        filter_values: Sequence[str | None] | None = None,
    ) -> None:
        """Sends messages in bulk and returns when all are confirmed; raises PublishFailed."""
        if bodies:
            waiter = Waiter(len(bodies))
            await self._accept_many(bodies, publishing_ids, filter_values, waiter)
            await self._settled(waiter)

    async def flush(self) -> None:
        """Returns when all that was sent so far is settled.

        Raises PublishFailed if any of it failed and nobody else was told.
        """
        through = self._out.next_id - 1
        while not self._out.log.settled_through(through):
            await self._next_progress()
        self._raise_failure()

    async def _accept_one(
        self,
        body: bytes,
        publishing_id: int | None,
        filter_value: str | None,
        waiter: Waiter | None,
    ) -> int:
        if filter_value is None and self.options.filter_value is not None:
            filter_value = self.options.filter_value(body)
        self._check_filters(filter_value is not None)
        size = size_of(body, filter_value)
        self._out.check_size(size)
        entry = Entry(
            [body],
            size,
            ids=None if publishing_id is None else [publishing_id],
            filters=None if filter_value is None else [filter_value],
        )
        await self._append(entry, waiter)
        return entry.first

    async def _accept_many(
        self,
        bodies: Sequence[bytes],
        publishing_ids: Sequence[int] | None,
        filter_values: Sequence[str | None] | None,
        waiter: Waiter | None,
    ) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if filter_values is None and self.options.filter_value is not None:
            filter_values = list(map(self.options.filter_value, bodies))
        self._check_filters(filter_values is not None)
        if bodies:
            for entry in self._out.pieces(bodies, publishing_ids, filter_values):
                await self._append(entry, waiter)
        await anyio.lowlevel.cancel_shielded_checkpoint()

    async def _append(self, entry: Entry, waiter: Waiter | None) -> None:
        messages = entry.messages
        if self._state.value is State.CLOSED or not self._out.has_room(messages, entry.size):
            await self._room(messages, entry.size)
        self._out.accept(entry, anyio.current_time(), waiter)
        self._want_write()

    async def _room(self, messages: int, size: int) -> None:
        """Waits until the window has room; raises once the publisher is closed."""
        while True:
            if self._state.value is State.CLOSED:
                raise self._closed_error()
            if self._out.has_room(messages, size):
                return
            await self._next_progress()

    async def _next_progress(self) -> None:
        if self._progress is None:
            self._progress = anyio.Event()
        await self._progress.wait()

    def _notify_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.set()

    async def _settled(self, waiter: Waiter) -> None:
        await waiter.settled.wait()
        if waiter.failures:
            raise self._failed_error(waiter.failures)

    def _want_write(self) -> None:
        if self._place is not None:
            self._place.connection.want_write(self)

    def _check_filters(self, wanted: bool) -> None:
        if wanted and self._place is not None:
            connection = self._place.connection
            if not connection.supports(Key.PUBLISH, 2):
                raise NotSupported("filter values need RabbitMQ 3.13 or later")

    # --- what the connection tells --------------------------------------------------------------

    def fill(self, buffers: list[bytes], limit: int) -> bool:
        place, out = self._place, self._out
        if place is None:
            return False
        messages, size = out.sent_messages, out.sent_bytes
        more = out.fill(place.id, buffers, limit)
        if self._core.telemetry.active:
            messages, size = out.sent_messages - messages, out.sent_bytes - size
            self._core.telemetry.emit(Published(self.stream, messages, size, self.unconfirmed))
        return more

    def confirmed(self, publishing_ids: tuple[int, ...]) -> None:
        oldest = self._out.log.oldest
        settled = self._out.log.settle(publishing_ids)
        self._notify_progress()
        if self.options.on_confirm is not None:
            self._call(self.options.on_confirm, publishing_ids)
        if self._core.telemetry.active and oldest is not None:
            seconds = anyio.current_time() - oldest.accepted_at
            self._core.telemetry.emit(
                Confirmed(self.stream, settled, Code.OK, seconds, self.unconfirmed)
            )

    def refused(self, errors: tuple[tuple[int, int], ...]) -> None:
        """Refusals; of an unknown publisher (after a leader has moved) it is declared again."""
        if any(code == Code.PUBLISHER_DOES_NOT_EXIST for _, code in errors):
            self._lose("the broker does not know the publisher any more")
            errors = tuple(e for e in errors if e[1] != Code.PUBLISHER_DOES_NOT_EXIST)
        if errors:
            self._tell(self._out.log.fail(errors))
            self._notify_progress()

    def metadata_changed(self, code: int) -> None:
        self._lose(f"the stream moved or was deleted (code {code})")

    def connection_lost(self, error: ConnectionClosed) -> None:
        self._lose(str(error))

    def _lose(self, reason: str) -> None:
        self._former, self._place = self._place or self._former, None
        self._attachment.lose(reason)

    # --- failures -------------------------------------------------------------------------------

    def _tell(self, failures: Sequence[tuple[int, int]]) -> None:
        """Failures that no waiter took go to `on_error`, or to the next `flush`."""
        if not failures:
            return
        if self._core.telemetry.active:
            self._core.telemetry.emit(
                Confirmed(self.stream, len(failures), failures[0][1], 0.0, self.unconfirmed)
            )
        error = self._failed_error(failures)
        if self.options.on_error is not None:
            self._call(self.options.on_error, [number for number, _ in failures], error)
            return
        self._failure = self._failure or error
        self._failed += len(failures)

    def _failed_error(self, failures: Sequence[tuple[int, int]]) -> PublishFailed:
        number, code = failures[0]
        if code:
            cls = SERVER_ERRORS.get(code)
            reason = f"was refused: {cls.__doc__ if cls else 'unknown code'} (code {code})"
        elif self._attachment.error is not None:
            reason = f"was not confirmed: {self._attachment.error}"
        else:
            reason = f"was not confirmed within {self.options.confirm_timeout:g} s"
        text = f'message {number} for "{self.stream}" {reason}'
        return PublishFailed(text, publishing_id=number, code=code, stream=self.stream)

    def _closed_error(self) -> FlowstreamError:
        error = self._attachment.error
        if error is None:
            return ConnectionClosed(f'the publisher of "{self.stream}" is closed')
        return error

    def _raise_failure(self) -> None:
        failure, failed = self._failure, self._failed
        self._failure, self._failed = None, 0
        if failure is not None:
            if failed > 1:
                failure.add_note(f"{failed} messages failed; this is the first")
            raise failure

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        try:
            callback(*args)
        except Exception:
            log.exception("%r: a callback raised", self)

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Publisher:
        spawn = self._core.owner.spawn
        self._tasks.append(spawn(self._attachment.run, name=f"publisher of {self.stream}"))
        if self.options.confirm_timeout is not None:
            name = f"confirm timeout of {self.stream}"
            self._tasks.append(spawn(self._expire, self.options.confirm_timeout, name=name))
        try:
            await self._state.wait(State.OPEN, State.CLOSED)
        except BaseException:
            await self._end()
            raise
        if self._attachment.error is not None:
            await self._end()
            raise self._attachment.error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flushes, then closes; after an exception it flushes for `close_timeout` at most."""
        try:
            if kind is None:
                await self.flush()
            else:
                with anyio.move_on_after(self._core.settings.close_timeout, shield=True):
                    while self._out.log.oldest is not None and self.state is not State.CLOSED:
                        await self._next_progress()
        finally:
            await self._end()

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                await task.wait()
            self._state.set(State.CLOSED)
            self._out.log.expire(float("inf"))
            self._notify_progress()

    async def _expire(self, timeout: float) -> None:
        while True:
            oldest = self._out.log.oldest
            now = anyio.current_time()
            await anyio.sleep((oldest.accepted_at if oldest else now) + timeout - now)
            self._tell([(n, 0) for n in self._out.log.expire(anyio.current_time() - timeout)])
            self._notify_progress()

    def _gave_up(self, error: FlowstreamError) -> None:
        self._tell([(number, 0) for number in self._out.log.expire(float("inf"))])
        self._notify_progress()

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        nodes = await self._core.locate(self.stream)
        place = await self._core.publishing.enter(nodes.for_writer(), self)
        self._former = place
        connection, reference = place.connection, self.options.reference
        answer = await connection.request(
            lambda c: DeclarePublisher(c, place.id, reference, self.stream), Response
        )
        action = f'publish to "{self.stream}"'
        check(answer.code, action, stream=self.stream, reference=reference)
        if reference is not None and self._sequence is None:
            found = await connection.request(
                lambda c: QueryPublisherSequence(c, reference, self.stream),
                QueryPublisherSequenceResponse,
            )
            check(found.code, action, stream=self.stream, reference=reference)
            self._sequence = found.sequence
            self._out.next_id = found.sequence + 1
        self._out.frame_max = connection.frame_max
        self._out.log.rewind()
        self._place, self._former = place, None
        self._want_write()

    async def _detach(self) -> None:
        """Gives the place back, and tells the broker where it may still know the publisher."""
        place = self._place or self._former
        self._place = self._former = None
        if place is None:
            return
        with anyio.CancelScope(shield=True):
            if place.connection.usable:
                timeout = self._core.settings.close_timeout
                try:
                    await place.connection.request(
                        lambda c: DeletePublisher(c, place.id), Response, timeout
                    )
                except (ConnectionClosed, RequestTimeout) as error:
                    log.debug("%r: %s", self, error)
            await self._core.publishing.leave(place)
