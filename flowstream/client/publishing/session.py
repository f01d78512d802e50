"""A publisher's session on a connection: declared, written from its buffer, confirmed.

After a loss it is declared again at the stream's leader, and everything that is unconfirmed is sent
again. `Failures` collects the errors of messages that no caller waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio

from flowstream.client.connecting.connection import ClientConnection, raise_for_code, reason_of
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.pool import Registration
from flowstream.client.connecting.recovery import Recovery, StateCell
from flowstream.client.connecting.settings import log
from flowstream.client.connecting.users import PublisherUser
from flowstream.errors import (
    ConnectionClosed,
    FlowstreamError,
    NotSupported,
    PublishFailed,
    SequenceLost,
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
from flowstream.signals import Signal, loop_clock
from flowstream.telemetry import Confirmed, Published
from flowstream.texts import interrupts, printable, shown

from .options import PublisherOptions
from .send_buffer import SendBuffer


class Failures:
    """Failures that no caller waits for: `on_error` gets them, or the next `flush` raises them."""

    def __init__(self, stream: str, options: PublisherOptions, state: StateCell) -> None:
        self._stream = stream
        self._options = options
        self._state = state
        self._first: PublishFailed | None = None
        self._count = 0
        self.cause: FlowstreamError | None = None

    def report(self, failures: Sequence[tuple[int, int]]) -> None:
        """Takes `(publishing id, code)` pairs; code 0 means that there was no answer."""
        if not failures:
            return
        error = self.error(failures)
        if self._options.on_error is not None:
            call(self._options.on_error, [number for number, _ in failures], error)
            return
        self._first = self._first or error
        self._count += len(failures)

    def error(self, failures: Sequence[tuple[int, int]]) -> PublishFailed:
        """The exception for these failures; it names the first of them."""
        number, code = failures[0]
        if code:
            reason = f"was refused (code {code}): {reason_of(code)}"
        elif self.cause is not None:
            reason = f"was not confirmed: {self.cause}"
        elif self._options.confirm_timeout is not None:
            reason = f"was not confirmed within {self._options.confirm_timeout:g} s"
            if self._state.obstacle:
                reason += f"; the publisher waits, because: {self._state.obstacle}"
        else:
            reason = "was not confirmed before the publisher was closed"
        text = f'message {number} for "{self._stream}" {reason}'
        if len(failures) > 1:
            text += f" ({len(failures)} messages in all)"
        return PublishFailed(text, publishing_id=number, code=code, stream=self._stream)

    def raise_kept(self) -> None:
        """Raises the first failure since the last call, if there was one."""
        failure, count = self._first, self._count
        self._first, self._count = None, 0
        if failure is not None:
            if count > 1:
                failure.add_note(f"{count} messages failed since the last flush")
            raise failure


def call(callback: Callable[..., None], *args: object) -> None:
    """Calls a callback of the application. What it raises is logged, not raised."""
    try:
        callback(*args)
    except BaseException as error:
        if interrupts(error):
            raise
        log.error(
            "a callback of a publisher raised an exception: %s",
            shown(callback),
            exc_info=printable(error),
        )


class PublisherSession:
    """Keeps a publisher declared at the stream's leader, and sends what is in its buffer."""

    def __init__(
        self, manager: ConnectionManager, stream: str, options: PublisherOptions, state: StateCell
    ) -> None:
        self.stream = stream
        self.buffer: Final = SendBuffer(
            stream,
            max_messages=options.max_unconfirmed,
            max_bytes=options.max_unconfirmed_bytes,
            frame_max=manager.settings.frame_max,
            sub_entry_size=options.sub_entry_size,
            compression=options.compression,
        )
        self.progress: Final = Signal()
        self.clock: Final = loop_clock()
        self.failures: Final = Failures(stream, options, state)
        self.sequence: int | None = None
        self._confirmed = 0
        self.recovery: Final = Recovery(
            state, manager.settings, attach=self._attach, detach=self._detach, gave_up=self._gave_up
        )
        self._manager = manager
        self._options = options
        self._number = state.number
        self._registration: Registration[PublisherUser] | None = None
        self._declared = False

    # --- sending --------------------------------------------------------------------------------

    def want_write(self) -> None:
        if self._declared and self._registration is not None:
            self._registration.connection.want_write(self)

    def check_filters(self) -> None:
        """Raises NotSupported if the broker cannot store filter values."""
        registration = self._registration
        if (
            registration is not None
            and self._declared
            and not registration.connection.supports(Key.PUBLISH, 2)
        ):
            raise NotSupported("filter values need RabbitMQ 3.13 or later")

    def fail_all(self) -> None:
        """Fails everything that is unconfirmed: the session has ended."""
        self.buffer.seal(self.clock())
        self._report([(number, 0) for number in self.buffer.expire(float("inf"))])
        self.progress.notify()

    async def expire(self, timeout: float) -> None:
        """Fails messages that are not confirmed `timeout` seconds after they were accepted."""
        while True:
            oldest = self.buffer.log.oldest
            now = self.clock()
            await anyio.sleep((oldest.accepted_at if oldest else now) + timeout - now)
            self._report([(number, 0) for number in self.buffer.expire(self.clock() - timeout)])
            self.progress.notify()

    def _report(self, failures: list[tuple[int, int]]) -> None:
        if failures and self._manager.telemetry.active:
            code = failures[0][1]
            self._manager.telemetry.emit(
                Confirmed(self.stream, len(failures), code, 0.0, self.buffer.messages, self._number)
            )
        self.failures.report(failures)

    # --- called by the connection --------------------------------------------------------------

    def fill(self, buffers: list[bytes], limit: int) -> bool:
        registration, buffer = self._registration, self.buffer
        if registration is None or not self._declared:
            return False
        messages, size = buffer.sent_messages, buffer.sent_bytes
        more = buffer.fill(registration.id, buffers, limit, self.clock())
        if self._manager.telemetry.active:
            messages, size = buffer.sent_messages - messages, buffer.sent_bytes - size
            self._manager.telemetry.emit(
                Published(self.stream, messages, size, buffer.messages, self._number)
            )
        return more

    def confirmed(self, publishing_ids: tuple[int, ...]) -> None:
        oldest = self.buffer.log.oldest
        settled = self.buffer.log.settle(publishing_ids)
        if self._options.require_sequence:
            self._confirmed = max(self._confirmed, *publishing_ids)
        self.progress.notify()
        if self._options.on_confirm is not None:
            call(self._options.on_confirm, publishing_ids)
        if self._manager.telemetry.active and oldest is not None:
            seconds = self.clock() - oldest.accepted_at
            self._manager.telemetry.emit(
                Confirmed(
                    self.stream, settled, Code.OK, seconds, self.buffer.messages, self._number
                )
            )

    def refused(self, errors: tuple[tuple[int, int], ...]) -> None:
        """The broker refused messages; with code 18 it lost the publisher: declare it again."""
        final = [error for error in errors if error[1] != Code.PUBLISHER_DOES_NOT_EXIST]
        if len(final) < len(errors):
            self._lose("the broker lost the publisher")
        if final:
            self._report(self.buffer.log.fail(final))
            self.progress.notify()

    def metadata_changed(self, code: int) -> None:
        self._lose(f"the stream moved or was deleted (code {code})")

    def connection_lost(self, error: ConnectionClosed) -> None:
        self._lose(str(error))

    def _lose(self, reason: str) -> None:
        self._declared = False
        self.recovery.lose(reason)

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        nodes = await self._manager.locate(self.stream)
        self._registration = registration = await self._manager.publishing.enter(
            nodes.for_writer(), self
        )
        connection, reference = registration.connection, self._options.reference
        answer = await connection.request(
            lambda c: DeclarePublisher(c, registration.id, reference, self.stream), Response
        )
        action = f'publish to "{self.stream}"'
        raise_for_code(answer.code, action, stream=self.stream, reference=reference)
        if reference is not None and self.sequence is None:
            self.sequence = self._confirmed = await self._sequence(connection, reference)
            self.buffer.next_id = self.sequence + 1
        elif reference is not None and self._options.require_sequence:
            found = await self._sequence(connection, reference)
            if found < self._confirmed:
                raise SequenceLost(
                    f'"{self.stream}" has forgotten what was published to it under the reference '
                    f"{reference!r}: it had confirmed publishing id {self._confirmed}, and now "
                    f"knows {found}. It was deleted and created again, or the broker has "
                    "forgotten the reference (it keeps 255 for each stream)"
                )
        self.buffer.frame_max = connection.frame_max
        self.buffer.log.rewind()
        self._declared = True
        self.want_write()

    async def _sequence(self, connection: ClientConnection, reference: str) -> int:
        """The highest publishing id of the reference that the stream knows; 0 if it knows none."""
        found = await connection.request(
            lambda c: QueryPublisherSequence(c, reference, self.stream),
            QueryPublisherSequenceResponse,
        )
        action = f'publish to "{self.stream}"'
        raise_for_code(found.code, action, stream=self.stream, reference=reference)
        return found.sequence

    async def _detach(self) -> None:
        registration, self._registration = self._registration, None
        self._declared = False
        if registration is not None:
            timeout = self._manager.settings.close_timeout
            await self._manager.publishing.retire(
                registration, lambda c: DeletePublisher(c, registration.id), timeout
            )

    def _gave_up(self, error: FlowstreamError) -> None:
        self.failures.cause = error
        self.fail_all()
