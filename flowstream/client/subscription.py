"""A consumer as the connection sees it: subscribed, given chunks, subscribed again where it was.

Chunks that were not handed over when a connection is lost are dropped and read again: `position`,
the offset behind what was handed over, is what a new subscription needs, and the chunk before it,
which tells whether this is still the same stream (lineage.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from flowstream.errors import (
    ConnectionClosed,
    FlowstreamError,
    NotSupported,
    ProtocolError,
)
from flowstream.protocol import (
    Chunk,
    Credit,
    Deliver,
    Key,
    Metadata,
    MetadataResponse,
    OffsetKind,
    OffsetSpec,
    Response,
    Subscribe,
    Unsubscribe,
)
from flowstream.telemetry import ChunkReceived
from flowstream.texts import text_of

from .attachment import Attachment
from .codes import check
from .connection import ClientConnection, SubscriptionUser
from .core import Core
from .delivery import Delivery, make_delivery
from .lineage import Lineage, Verdict
from .options import ConsumerOptions
from .pool import Place
from .probe import probe
from .settings import log
from .signals import Signal
from .states import State, StateCell

OnUpdate = Callable[[ClientConnection | None, int, bool], None]
"""Connection (None: it was lost), correlation id, active."""


class Subscription:
    """Keeps a consumer subscribed at a member of the stream, and holds the chunks it was given."""

    def __init__(
        self,
        core: Core,
        stream: str,
        options: ConsumerOptions,
        state: StateCell,
        *,
        start: OffsetSpec,
        arrived: Signal,
        on_update: OnUpdate,
    ) -> None:
        self.stream = stream
        self.arrived = arrived
        self.position: int | None = start.value if start.kind is OffsetKind.OFFSET else None
        self.active = not options.single_active
        self.failure: Exception | None = None
        self.buffered_bytes = 0
        self.credits = 0
        self.attachment = Attachment(
            state, core.settings, attach=self._attach, detach=self._detach, gave_up=self.fail
        )
        self._core = core
        self._options = options
        self._credit = options.credit
        self._state = state
        self._start = start
        self._on_update = on_update
        self._place: Place[SubscriptionUser] | None = None
        self._accepting = False
        self._fresh = False
        self._chunks: deque[tuple[Chunk, int | None]] = deque()
        self._held = False
        self._lineage = Lineage()
        self._tries = 0

    @property
    def buffered(self) -> int:
        return len(self._chunks)

    @property
    def held(self) -> bool:
        """A delivery was handed over and the next one was not asked for."""
        return self._held

    # --- reading --------------------------------------------------------------------------------

    def done(self) -> None:
        """The application is done with what it was given: the credit goes back."""
        if self._held:
            self._held = False
            self.arrived.notify()
            self._give(self._credit.done())

    def take(self) -> Delivery | None:
        """The next messages, if there are any; raises for a damaged chunk and after a failure."""
        while self._chunks and self.active:
            chunk, committed = self._chunks.popleft()
            self.buffered_bytes -= len(chunk.data)
            start = self.position or 0
            try:
                delivery = make_delivery(self.stream, chunk, start, committed, self._options.match)
            except FlowstreamError as error:
                self.fail(error)
                raise
            self.position = max(start, chunk.offset + chunk.records)
            self._lineage.read(chunk)
            if delivery is not None:
                self._held = True
                return delivery
            self._give(self._credit.done())
        if self.failure is not None:
            raise self.failure
        return None

    def begin_at(self, offset: OffsetSpec) -> None:
        """Sets where the next chunk is expected (single active consumers)."""
        self._start = offset
        self._lineage.forget()
        self.position = offset.value if offset.kind is OffsetKind.OFFSET else None

    def pause(self) -> None:
        """Stands by: what is buffered will be read by somebody else."""
        self.active = False
        self._forget()

    def fail(self, error: Exception) -> None:
        """Ends the consumer with an error that the application gets."""
        if self.failure is None:
            self.failure = error
            self._accepting = False
            self._forget()
            self._state.set(State.CLOSED, text_of(error))
            self.arrived.notify()

    def _give(self, credit: int) -> None:
        place = self._place
        if credit and self._accepting and place is not None and place.connection.usable:
            self.credits += credit
            place.connection.send(Credit(place.id, credit))

    def _forget(self) -> None:
        self._chunks.clear()
        self.buffered_bytes = 0

    # --- what the connection tells --------------------------------------------------------------

    def delivered(self, deliver: Deliver) -> None:
        if not self._accepting:
            return
        try:
            chunk = Chunk.parse(deliver.chunk)
        except ProtocolError as error:
            self.fail(error)
            return
        self.credits -= 1
        if self._fresh:
            self._fresh = False
            if self._is_not_to_be_read(chunk):
                return
        self._chunks.append((chunk, deliver.committed_chunk_id))
        self.buffered_bytes += len(chunk.data)
        self.arrived.notify()
        self._give(self._credit.arrived())
        if self._core.telemetry.active:
            self._core.telemetry.emit(
                ChunkReceived(
                    self.stream,
                    chunk.records,
                    len(chunk.data),
                    self.credits,
                    deliver.committed_chunk_id,
                    self.buffered_bytes,
                )
            )

    def credit_refused(self, code: int) -> None:
        """Normal after a demotion (17), and when a credit meets the end of a subscription (4)."""
        log.debug(
            "consumer of %r: credit was refused with code %d", self.stream, code,
            extra={"stream": self.stream},
        )  # fmt: skip

    def update(self, correlation_id: int, active: bool) -> None:
        if self._place is not None:
            self._on_update(self._place.connection, correlation_id, active)

    def metadata_changed(self, code: int) -> None:
        self._lose(f"the stream moved or was deleted (code {code})")

    def connection_lost(self, error: ConnectionClosed) -> None:
        self._lose(str(error))

    def _lose(self, reason: str) -> None:
        self._accepting = False
        self.credits = 0
        self._forget()
        if self._options.single_active and self.active:
            self.active = False
            self._on_update(None, 0, False)
        self.attachment.lose(reason)

    def _is_not_to_be_read(self, first: Chunk) -> bool:
        """The first chunk: the one that was read before, or one that shows another stream."""
        verdict = self._lineage.judge(first)
        if verdict is Verdict.OTHER:
            self._begin_again()
            return True
        if verdict is Verdict.SAME and first.offset + first.records <= (self.position or 0):
            self._give(1)
            return True
        return False

    def _begin_again(self) -> None:
        log.warning(
            "stream %r was created again: it is read from its beginning", self.stream,
            extra={"stream": self.stream},
        )  # fmt: skip
        self.begin_at(OffsetSpec.first())
        self._lose("the stream was created again")

    async def _look_at_the_beginning(self, connection: ClientConnection) -> None:
        """Where the chunk that was read last does not come again, the stream may be another one.

        It may also be that a replica has not caught up, or a new leader does not know yet what is
        committed. A stream never becomes empty, so an empty one is a new one.
        """
        await connection.request(lambda c: Metadata(c, (self.stream,)), MetadataResponse)
        if not self._fresh:  # brokers send what there is before they look at the next command
            return
        first = await probe(self._core, self.stream, OffsetSpec.first())
        if first is None:
            if connection.supports(Key.STREAM_STATS):
                self._begin_again()
        elif self._lineage.judge(first) is Verdict.OTHER:
            self._begin_again()

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        options = self._options
        nodes = await self._core.locate(self.stream)
        if not options.single_active:
            await self._settle_start()
        self._tries += 1
        node = nodes.for_reader() if self._tries % 2 else nodes.for_writer()
        self._place = place = await self._core.consuming.enter(node, self)
        self._check_supported(place.connection)
        last_read = self._lineage.start()
        start = last_read or self._asked()
        self._held = False
        self.credits = options.credit.initial
        self._accepting = self._fresh = True
        answer = await place.connection.request(
            lambda c: Subscribe(
                c, place.id, self.stream, start, options.credit.initial, options.properties()
            ),
            Response,
        )
        action = f'consume "{self.stream}"'
        check(answer.code, action, stream=self.stream, reference=options.name)
        self._tries = 0
        if last_read is not None and self._fresh and not options.single_active:
            await self._look_at_the_beginning(place.connection)

    async def _settle_start(self) -> None:
        """Makes offsets of "next" and "last": a loss before the first chunk then loses nothing."""
        if self.position is not None or self._start.kind not in (OffsetKind.NEXT, OffsetKind.LAST):
            return
        chunk = await probe(self._core, self.stream, OffsetSpec.last())
        if chunk is None:
            self._start = OffsetSpec.first()
            return
        self._lineage.read(chunk)
        last = self._start.kind is OffsetKind.LAST
        self.position = chunk.offset if last else chunk.offset + chunk.records

    def _asked(self) -> OffsetSpec:
        return self._start if self.position is None else OffsetSpec.offset(self.position)

    def _check_supported(self, connection: ClientConnection) -> None:
        options = self._options
        if options.filter_values and not connection.supports(Key.PUBLISH, 2):
            raise NotSupported("filter_values needs RabbitMQ 3.13 or later")
        if options.single_active and not connection.wire.versions:  # told from 3.11 on
            raise NotSupported("single_active needs RabbitMQ 3.11 or later")

    async def _detach(self) -> None:
        place, self._place = self._place, None
        self._accepting = False
        if place is not None:
            timeout = self._core.settings.close_timeout
            await self._core.consuming.retire(place, lambda c: Unsubscribe(c, place.id), timeout)
