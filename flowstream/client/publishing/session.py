"""A publisher as the connection sees it: declared, fed from its outbox, confirmed, again."""

from __future__ import annotations

import anyio

from flowstream.client.connecting.codes import check
from flowstream.client.connecting.connection import PublisherUser
from flowstream.client.connecting.core import Core
from flowstream.client.connecting.pool import Place
from flowstream.client.connecting.recovery import Attachment
from flowstream.client.connecting.signals import Signal
from flowstream.client.connecting.states import StateCell
from flowstream.client.options import PublisherOptions
from flowstream.errors import ConnectionClosed, FlowstreamError, NotSupported
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

from .failures import Failures, call
from .send_buffer import Outbox


class Declaration:
    """Keeps a publisher declared at the stream's leader, and everything unconfirmed under way."""

    def __init__(
        self, core: Core, stream: str, options: PublisherOptions, state: StateCell
    ) -> None:
        self.stream = stream
        self.out = Outbox(
            stream,
            max_messages=options.max_unconfirmed,
            max_bytes=options.max_unconfirmed_bytes,
            frame_max=core.settings.frame_max,
            sub_batch=options.sub_batch,
            compression=options.compression,
        )
        self.progress = Signal()
        self.failures = Failures(stream, options)
        self.sequence: int | None = None
        self.attachment = Attachment(
            state, core.settings, attach=self._attach, detach=self._detach, gave_up=self._gave_up
        )
        self._core = core
        self._options = options
        self._place: Place[PublisherUser] | None = None
        self._declared = False

    # --- sending --------------------------------------------------------------------------------

    def want_write(self) -> None:
        if self._declared and self._place is not None:
            self._place.connection.want_write(self)

    def check_filters(self) -> None:
        """Raises NotSupported where the broker cannot store filter values."""
        place = self._place
        if place is not None and self._declared and not place.connection.supports(Key.PUBLISH, 2):
            raise NotSupported("filter values need RabbitMQ 3.13 or later")

    def fail_all(self) -> None:
        """Nothing that is unconfirmed will be confirmed any more."""
        self.out.seal(anyio.current_time())
        self._tell([(number, 0) for number in self.out.expire(float("inf"))])
        self.progress.notify()

    async def expire(self, timeout: float) -> None:
        """Fails what was accepted `timeout` seconds ago and is not confirmed; runs for ever."""
        while True:
            oldest = self.out.log.oldest
            now = anyio.current_time()
            await anyio.sleep((oldest.accepted_at if oldest else now) + timeout - now)
            self._tell([(number, 0) for number in self.out.expire(anyio.current_time() - timeout)])
            self.progress.notify()

    def _tell(self, failures: list[tuple[int, int]]) -> None:
        if failures and self._core.telemetry.active:
            code = failures[0][1]
            self._core.telemetry.emit(
                Confirmed(self.stream, len(failures), code, 0.0, self.out.messages)
            )
        self.failures.tell(failures)

    # --- what the connection tells --------------------------------------------------------------

    def fill(self, buffers: list[bytes], limit: int) -> bool:
        place, out = self._place, self.out
        if place is None or not self._declared:
            return False
        messages, size = out.sent_messages, out.sent_bytes
        more = out.fill(place.id, buffers, limit, anyio.current_time())
        if self._core.telemetry.active:
            messages, size = out.sent_messages - messages, out.sent_bytes - size
            self._core.telemetry.emit(Published(self.stream, messages, size, out.messages))
        return more

    def confirmed(self, publishing_ids: tuple[int, ...]) -> None:
        oldest = self.out.log.oldest
        settled = self.out.log.settle(publishing_ids)
        self.progress.notify()
        if self._options.on_confirm is not None:
            call(self._options.on_confirm, publishing_ids)
        if self._core.telemetry.active and oldest is not None:
            seconds = anyio.current_time() - oldest.accepted_at
            self._core.telemetry.emit(
                Confirmed(self.stream, settled, Code.OK, seconds, self.out.messages)
            )

    def refused(self, errors: tuple[tuple[int, int], ...]) -> None:
        """Refusals. The broker may have forgotten the publisher (18): then it is declared again."""
        final = [error for error in errors if error[1] != Code.PUBLISHER_DOES_NOT_EXIST]
        if len(final) < len(errors):
            self._lose("the broker does not know the publisher any more")
        if final:
            self._tell(self.out.log.fail(final))
            self.progress.notify()

    def metadata_changed(self, code: int) -> None:
        self._lose(f"the stream moved or was deleted (code {code})")

    def connection_lost(self, error: ConnectionClosed) -> None:
        self._lose(str(error))

    def _lose(self, reason: str) -> None:
        self._declared = False
        self.attachment.lose(reason)

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        nodes = await self._core.locate(self.stream)
        self._place = place = await self._core.publishing.enter(nodes.for_writer(), self)
        connection, reference = place.connection, self._options.reference
        answer = await connection.request(
            lambda c: DeclarePublisher(c, place.id, reference, self.stream), Response
        )
        action = f'publish to "{self.stream}"'
        check(answer.code, action, stream=self.stream, reference=reference)
        if reference is not None and self.sequence is None:
            found = await connection.request(
                lambda c: QueryPublisherSequence(c, reference, self.stream),
                QueryPublisherSequenceResponse,
            )
            check(found.code, action, stream=self.stream, reference=reference)
            self.sequence = found.sequence
            self.out.next_id = found.sequence + 1
        self.out.frame_max = connection.frame_max
        self.out.log.rewind()
        self._declared = True
        self.want_write()

    async def _detach(self) -> None:
        place, self._place = self._place, None
        self._declared = False
        if place is not None:
            timeout = self._core.settings.close_timeout
            await self._core.publishing.retire(
                place, lambda c: DeletePublisher(c, place.id), timeout
            )

    def _gave_up(self, error: FlowstreamError) -> None:
        self.failures.cause = error
        self.fail_all()
