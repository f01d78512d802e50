"""A consumer as the connection sees it: subscribed, given chunks, subscribed again where it was.

Chunks that were not handed over when a connection is lost are dropped and read again: `position`,
the offset behind what was handed over, is what a new subscription needs, and the chunk before it,
which tells whether this is still the same stream (identity.py). `watch` looks at where the stream
begins: behind every gap between chunks, and now and then (retention.py).
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from flowstream.client.connecting.connection import ClientConnection, raise_for_code
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.pool import Registration
from flowstream.client.connecting.recovery import Recovery, State, StateCell
from flowstream.client.connecting.settings import log
from flowstream.client.connecting.tasks import Signal
from flowstream.client.connecting.users import SubscriptionUser
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
from flowstream.telemetry import ChunkReceived, Overtaken, RetentionLooked
from flowstream.texts import text_of

from .delivery import Arrival, Arrivals, Delivery, StreamIdentity, Verdict, make_delivery
from .options import ConsumerOptions
from .probe import find_ends, find_first, probe
from .retention import Distance, Headroom, overtaken

OnUpdate = Callable[[ClientConnection | None, int, bool], None]
"""Connection (None: it was lost), correlation id, active."""

FIRST_LOOK = 1.0
LOOK_INTERVAL = 5.0
PROBE_INTERVAL = 30.0
"""Seconds between looks at where the stream begins; below RabbitMQ 3.11 a look reads a chunk."""

FILTER_INTERVAL = 3.0
"""The same with a filter: what it leaves out is lag until it is passed, and a look passes it."""


class Subscription:
    """Keeps a consumer subscribed at a member of the stream, and holds the chunks it was given."""

    def __init__(
        self,
        manager: ConnectionManager,
        stream: str,
        options: ConsumerOptions,
        state: StateCell,
        *,
        start: OffsetSpec,
        arrived: Signal,
        on_update: OnUpdate,
        on_begin_again: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.arrived = arrived
        self.position: int | None = start.value if start.kind is OffsetKind.OFFSET else None
        self.active = not options.single_active
        self.failure: Exception | None = None
        self.credits = 0
        self.lost = 0
        self.recovery = Recovery(
            state, manager.settings, attach=self._attach, detach=self._detach, gave_up=self.fail
        )
        self._manager = manager
        self._options = options
        self._credit = options.credit
        self._state = state
        self._start = start
        self._on_update = on_update
        self._on_begin_again = on_begin_again
        self._registration: Registration[SubscriptionUser] | None = None
        self._accepting = False
        self._fresh = False
        self._arrivals = Arrivals()
        self._gap = Signal()
        self._headroom = Headroom()
        self._received = 0
        self._quiet_since: tuple[object, int] | None = None
        self._untold = 0
        self._held = False
        self._since = _since(start)
        self._identity = StreamIdentity()
        self._tries = 0

    @property
    def buffered(self) -> int:
        return len(self._arrivals)

    @property
    def buffered_bytes(self) -> int:
        return self._arrivals.bytes

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
        """The next messages, if there are any.

        Raises for a damaged chunk, where retention has overtaken the reader, and after a failure.
        """
        while self.active and (arrival := self._arrivals.take()) is not None:
            if arrival.lost:
                self._overtaken(arrival)
            chunk, start = arrival.chunk, self.position or 0
            try:
                delivery = make_delivery(
                    self.stream, chunk, start, arrival.committed_chunk_id, self._options.match,
                    lost=self._untold,
                )  # fmt: skip
            except FlowstreamError as error:
                self.fail(error)
                raise
            self.position = max(start, chunk.offset + chunk.records)
            self._identity.read(chunk)
            if chunk.timestamp < self._since:
                delivery = None
            else:
                self._since = 0
            if delivery is not None:
                self._held = True
                self._untold = 0
                return delivery
            self._give(self._credit.done())
        if self.failure is not None:
            raise self.failure
        return None

    def _overtaken(self, arrival: Arrival) -> None:
        """Retention has removed what was to come before this chunk; raises unless that is accepted.

        The position stays before what was lost, so that nothing behind it is stored.
        """
        self.lost += arrival.lost
        self._manager.telemetry.emit(Overtaken(self.stream, arrival.lost))
        error = overtaken(self.stream, arrival.expected, arrival.lost)
        if self._options.on_truncated == "error":
            self.fail(error)
            raise error
        self._untold += arrival.lost
        log.warning(
            "retention overtook the consumer of %r: it skips %d offsets from %d on", self.stream,
            arrival.lost, arrival.expected,
            extra={"stream": self.stream, "offset": arrival.expected},
        )  # fmt: skip

    def begin_at(self, offset: OffsetSpec) -> None:
        """Sets where the next chunk is expected (single active consumers)."""
        self._start = offset
        self._since = _since(offset)
        self._identity.forget()
        self.position = offset.value if offset.kind is OffsetKind.OFFSET else None
        self._forget()

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
        registration = self._registration
        if (
            credit
            and self._accepting
            and registration is not None
            and registration.connection.usable
        ):
            self.credits += credit
            registration.connection.send(Credit(registration.id, credit))

    def _forget(self) -> None:
        self._arrivals.clear(self.position)

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
        self._received += 1
        if self._fresh:
            self._fresh = False
            if self._is_not_to_be_read(chunk):
                return
        if self.position is None:  # a loss from now on goes on here, wherever "first" leads then
            self.position = chunk.offset
        arrival = self._arrivals.add(chunk, deliver.committed_chunk_id)
        (self.arrived if arrival.gap is None else self._gap).notify()
        self._give(self._credit.arrived())
        if self._manager.telemetry.active:
            self._manager.telemetry.emit(
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
        if self._registration is not None:
            self._on_update(self._registration.connection, correlation_id, active)

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
        self.recovery.lose(reason)

    def _is_not_to_be_read(self, first: Chunk) -> bool:
        """The first chunk: the one that was read before, or one that shows another stream."""
        verdict = self._identity.judge(first)
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
        self._on_begin_again()
        self._lose("the stream was created again")

    async def _look_at_the_beginning(self, connection: ClientConnection) -> None:
        """Where the chunk that was read last does not come again, the stream may be another one.

        It may also be that a replica has not caught up, or a new leader does not know yet what is
        committed. A stream never becomes empty, so an empty one is a new one.
        """
        await connection.request(lambda c: Metadata(c, (self.stream,)), MetadataResponse)
        if not self._fresh:  # brokers send what there is before they look at the next command
            return
        first = await probe(self._manager, self.stream, OffsetSpec.first())
        if first is None:
            if connection.supports(Key.STREAM_STATS):
                self._begin_again()
        elif self._identity.judge(first) is Verdict.OTHER:
            self._begin_again()

    # --- retention ------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Explains gaps as they come, and warns before retention overtakes the reader."""
        due = anyio.current_time() + FIRST_LOOK
        while True:
            if not self._arrivals.unexplained():
                with anyio.CancelScope(deadline=due):
                    await self._gap.wait()
            registration = self._registration
            look = anyio.current_time() >= due  # however many gaps come, such as by commits
            if look:
                due = anyio.current_time() + LOOK_INTERVAL
            if registration is None or not self._accepting:
                continue
            try:
                if gaps := self._arrivals.unexplained():
                    await self._explain(registration.connection, gaps)
                if look and self.active:
                    due = anyio.current_time() + self._interval(registration.connection)
                    await self._look(registration.connection)
            except FlowstreamError as error:
                log.debug(
                    "consumer of %r: where the stream begins is not known: %s", self.stream, error,
                    extra={"stream": self.stream},
                )  # fmt: skip
                await anyio.sleep(self._manager.settings.backoff.delay(1))

    def _interval(self, connection: ClientConnection) -> float:
        if not connection.supports(Key.STREAM_STATS):
            return PROBE_INTERVAL
        return min(LOOK_INTERVAL, FILTER_INTERVAL) if self._options.filters() else LOOK_INTERVAL

    async def _explain(self, connection: ClientConnection, gaps: list[Arrival]) -> None:
        """Those that came before the question was asked: the answer is of a time behind them."""
        first = await find_first(self._manager, connection, self.stream)
        for arrival in gaps:
            arrival.judge(first)
        self.arrived.notify()

    async def _look(self, connection: ClientConnection) -> None:
        first, newest = await find_ends(self._manager, connection, self.stream)
        if first is None or newest is None:
            return
        await self._pass_what_does_not_come(connection, newest)
        settled = self._settled()
        if settled is None:
            return
        self._manager.telemetry.emit(RetentionLooked(self.stream, settled + 1 - first))
        distance = self._headroom.looked(first, settled, newest)
        if distance is Distance.CLOSE:
            log.warning(
                "retention is about to overtake the consumer of %r: it goes on with offset %d, the "
                "stream begins at %d, and %d offsets were removed last. Make the reader faster or "
                "give the stream a longer retention",
                self.stream, settled + 1, first, self._headroom.step,
                extra={"stream": self.stream, "offset": settled},
            )  # fmt: skip
        elif distance is Distance.BEHIND:
            log.warning(
                "retention has overtaken the consumer of %r: it goes on with offset %d, and the "
                "stream begins at %d. What it has not read yet of the offsets between is lost",
                self.stream, settled + 1, first,
                extra={"stream": self.stream, "offset": settled},
            )  # fmt: skip

    async def _pass_what_does_not_come(self, connection: ClientConnection, newest: int) -> None:
        """Goes on behind chunks that the broker left out because of a filter.

        Nothing tells of them, so a reader that waits for others would seem to stay where it is
        until retention overtakes it. Where nothing comes meanwhile, a probe shows that nothing is
        left up to the last message: brokers send what there is before they answer.
        """
        now = self._registration, self._received
        quiet, self._quiet_since = self._quiet_since == now, now
        position, filters = self.position, self._options.filters()
        if not (quiet or filters) or self.buffered or position is None or newest <= position:
            return
        if not connection.supports(Key.STREAM_STATS):
            return
        last = await probe(self._manager, self.stream, OffsetSpec.last())
        end = 0 if last is None else last.offset + last.records
        messages = end > position
        asked = OffsetSpec.offset(position)
        if filters and await probe(self._manager, self.stream, asked, filters) is not None:
            return
        if (messages and not filters) or self._quiet_since != (self._registration, self._received):
            return
        self._arrivals.next = max(newest, end)
        if messages:  # not for the broker's own records: storing that would make another one
            self.position = end

    def _settled(self) -> int | None:
        """The last offset that the reader is done with, as far as it tells."""
        settled = self._options.settled
        if settled is not None and (offset := settled(self.stream)) is not None:
            return offset
        return None if self.position is None else self.position - 1

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        options = self._options
        nodes = await self._manager.locate(self.stream)
        if not options.single_active:
            await self._settle_start()
        self._tries += 1
        node = nodes.for_reader() if self._tries % 2 else nodes.for_writer()
        self._registration = registration = await self._manager.consuming.enter(node, self)
        self._check_supported(registration.connection)
        last_read = self._identity.start()
        start = last_read or self._asked()
        self._held = False
        self._forget()
        self.credits = options.credit.initial
        self._accepting = self._fresh = True
        answer = await registration.connection.request(
            lambda c: Subscribe(
                c, registration.id, self.stream, start, options.credit.initial, options.properties()
            ),
            Response,
        )
        action = f'consume "{self.stream}"'
        raise_for_code(answer.code, action, stream=self.stream, reference=options.name)
        self._tries = 0
        if last_read is not None and self._fresh and not options.single_active:
            await self._look_at_the_beginning(registration.connection)

    async def _settle_start(self) -> None:
        """Makes offsets of "next" and "last": a loss before the first chunk then loses nothing."""
        if self.position is not None or self._start.kind not in (OffsetKind.NEXT, OffsetKind.LAST):
            return
        chunk = await probe(self._manager, self.stream, OffsetSpec.last())
        if chunk is None:
            self._start = OffsetSpec.first()
            return
        self._identity.read(chunk)
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
        registration, self._registration = self._registration, None
        self._accepting = False
        self._forget()
        if registration is not None:
            timeout = self._manager.settings.close_timeout
            await self._manager.consuming.retire(
                registration, lambda c: Unsubscribe(c, registration.id), timeout
            )


def _since(start: OffsetSpec) -> int:
    """When what is read at first was written, at the earliest: brokers take a point in the future
    for now."""
    return start.value if start.kind is OffsetKind.TIMESTAMP else 0
