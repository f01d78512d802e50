"""Consumes one stream: credits, exact resumption, single active consumers.

`async for delivery in consumer` hands over a chunk's messages at a time. The next chunk's credit is
given back when the next delivery is asked for, so an application that does not ask stops the
broker, and at most the initial credit's chunks are in memory. After a loss the consumer goes on
behind the last message it handed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import anyio

from flowstream.errors import (
    ConfigurationError,
    ConnectionClosed,
    FlowstreamError,
    NotSupported,
    RequestTimeout,
    StreamDoesNotExist,
)
from flowstream.protocol import (
    Chunk,
    Credit,
    Deliver,
    Key,
    OffsetKind,
    OffsetSpec,
    Response,
    Subscribe,
    Unsubscribe,
)
from flowstream.telemetry import ChunkReceived

from .attachment import Attachment
from .codes import check
from .connection import ClientConnection, SubscriptionUser
from .core import Core
from .credit import CreditStrategy, CreditWhenDone
from .delivery import Delivery, Match, make_delivery
from .pool import Place
from .probe import probe
from .settings import log
from .states import State, StateCell
from .tasks import Task


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """How a consumer behaves; checked when it is made.

    `name` is needed for a single active consumer. With `filter_values` the broker leaves out
    chunks that cannot match; `match` then decides on each message, as a chunk can hold others.
    """

    offset: OffsetSpec = field(default_factory=OffsetSpec.first)
    credit: CreditStrategy = field(default_factory=CreditWhenDone)
    name: str | None = None
    filter_values: Sequence[str] = ()
    match_unfiltered: bool = False
    match: Match | None = None
    single_active: bool = False
    super_stream: str | None = None
    on_active: Callable[[], Awaitable[OffsetSpec]] | None = None
    on_inactive: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        if self.single_active and self.name is None:
            raise ConfigurationError("single_active=True needs name=, the group's name")
        if self.single_active and self.on_active is None:
            raise ConfigurationError("single_active=True needs on_active=")
        if self.name is not None and not 0 < len(self.name.encode()) <= 255:
            raise ConfigurationError("name must have 1 to 255 bytes")
        if self.filter_values and self.match is None:
            raise ConfigurationError(
                "filter_values needs match=, which decides on each message: the broker's filter "
                "only leaves out whole chunks"
            )

    def properties(self) -> dict[str, str]:
        """The properties of the subscription."""
        found: dict[str, str] = {}
        if self.name is not None:
            found["name"] = self.name
        if self.single_active:
            found["single-active-consumer"] = "true"
        if self.super_stream is not None:
            found["super-stream"] = self.super_stream
        for number, value in enumerate(self.filter_values):
            found[f"filter.{number}"] = value
        if self.match_unfiltered:
            found["match-unfiltered"] = "true"
        return found


class Consumer:
    """`async with env.consumer("orders") as consumer: async for delivery in consumer: ...`."""

    def __init__(self, core: Core, stream: str, options: ConsumerOptions) -> None:
        self.stream = stream
        self.options = options
        self._core = core
        self._place: Place[SubscriptionUser] | None = None
        self._accepting = False
        self._chunks: deque[tuple[Chunk, int | None]] = deque()
        self._buffered = 0
        self._credits = 0
        self._taken = False
        self._arrived = anyio.Event()
        self._position: int | None = None
        self._start = options.offset
        self._attempts = 0
        self._updates: deque[tuple[ClientConnection, int, bool]] = deque()
        self._updated = anyio.Event()
        self._active = not options.single_active
        self._failure: FlowstreamError | None = None
        self._state = StateCell("consumer", stream, core.telemetry)
        self._attachment = Attachment(
            self._state,
            core.settings,
            attach=self._attach,
            detach=self._detach,
            gave_up=self._gave_up,
        )
        self._tasks: list[Task] = []

    def __repr__(self) -> str:
        return f"<consumer of {self.stream!r} {self.state.value}>"

    # --- state ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state.value

    async def wait_for(self, *states: State) -> State:
        """Returns once the consumer is in one of these states."""
        return await self._state.wait(*states)

    @property
    def active(self) -> bool:
        """Whether messages come here; false for a single active consumer that stands by."""
        return self._active

    @property
    def position(self) -> int | None:
        """The offset after the last message that was handed over; None before the first."""
        return self._position

    def statistics(self) -> dict[str, int]:
        return {
            "credits": self._credits,
            "buffered_chunks": len(self._chunks),
            "buffered_bytes": self._buffered,
            "max_chunks": self.options.credit.initial,
            "recoveries": self._attachment.recoveries,
        }

    # --- iterating ------------------------------------------------------------------------------

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Delivery:
        """The next messages; the ones before count as taken care of, and their credit goes back.

        Raises ChecksumMismatch or ProtocolError for a damaged chunk, and why the consumer was
        given up; ends when it was closed.
        """
        if self._taken:
            self._taken = False
            self._give_credit(self.options.credit.done())
        while True:
            while self._chunks:
                delivery = self._take()
                if delivery is not None:
                    self._taken = True
                    return delivery
                self._give_credit(self.options.credit.done())
            if self._failure is not None:
                raise self._failure
            if self._state.value is State.CLOSED:
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()

    def _take(self) -> Delivery | None:
        chunk, committed = self._chunks.popleft()
        self._buffered -= len(chunk.data)
        start = self._position or 0
        end = chunk.offset + chunk.records
        try:
            delivery = make_delivery(self.stream, chunk, start, committed, self.options.match)
        except FlowstreamError as error:
            self._fail(error)
            raise
        self._position = max(end, start)
        return delivery

    def _give_credit(self, credit: int) -> None:
        place = self._place
        if credit and place is not None and place.connection.error is None:
            self._credits += credit
            place.connection.send(Credit(place.id, credit))

    def _fail(self, error: FlowstreamError) -> None:
        self._failure = error
        self._state.set(State.CLOSED, str(error))
        self._arrived.set()

    # --- what the connection tells --------------------------------------------------------------

    def delivered(self, deliver: Deliver) -> None:
        if not self._accepting:
            return
        chunk = Chunk.parse(deliver.chunk)
        self._credits -= 1
        end = chunk.offset + chunk.records
        if self._position is not None and end <= self._position and not self._chunks:
            self._restart(chunk)
            return
        self._chunks.append((chunk, deliver.committed_chunk_id))
        self._buffered += len(chunk.data)
        self._arrived.set()
        self._give_credit(self.options.credit.arrived())
        if self._core.telemetry.active:
            self._core.telemetry.emit(
                ChunkReceived(
                    self.stream,
                    chunk.records,
                    len(chunk.data),
                    self._credits,
                    deliver.committed_chunk_id,
                )
            )

    def _restart(self, chunk: Chunk) -> None:
        """The chunk ends before what was asked for: this is another stream of the same name."""
        log.warning(
            "%r: offset %s was asked for and %d came; the stream was created again, so it is read "
            "from its beginning",
            self,
            self._position,
            chunk.offset,
        )
        self._position = None
        self._start = OffsetSpec.first()
        self._lose("the stream was created again")

    def credit_refused(self, code: int) -> None:
        """Normal after a demotion (17), or when a credit crosses the end of a subscription (4)."""
        log.debug("%r: credit was refused with code %d", self, code)

    def update(self, correlation_id: int, active: bool) -> None:
        place = self._place_of_update()
        if place is not None:
            self._updates.append((place.connection, correlation_id, active))
            self._updated.set()

    def metadata_changed(self, code: int) -> None:
        self._lose(f"the stream moved or was deleted (code {code})")

    def connection_lost(self, error: ConnectionClosed) -> None:
        self._lose(str(error))

    def _place_of_update(self) -> Place[SubscriptionUser] | None:
        return self._place

    def _lose(self, reason: str) -> None:
        self._accepting = False
        self._active = not self.options.single_active
        self._forget_chunks()
        self._attachment.lose(reason)

    def _forget_chunks(self) -> None:
        """What was not handed over comes again: the position is behind what was."""
        self._chunks.clear()
        self._buffered = self._credits = 0
        self._taken = False

    # --- single active consumer -----------------------------------------------------------------

    async def _follow_updates(self) -> None:
        while True:
            while self._updates:
                connection, correlation_id, active = self._updates.popleft()
                offset = await (self._promoted() if active else self._demoted())
                if connection.error is None:
                    connection.answer_update(correlation_id, offset)
            self._updated = anyio.Event()
            await self._updated.wait()

    async def _promoted(self) -> OffsetSpec:
        assert self.options.on_active is not None
        offset = await self.options.on_active()
        self._position = offset.value if offset.kind is OffsetKind.OFFSET else None
        self._start = offset
        self._active = True
        return offset

    async def _demoted(self) -> OffsetSpec:
        self._active = False
        if self.options.on_inactive is not None:
            await self.options.on_inactive()
        self._forget_chunks()
        return OffsetSpec.none()

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Consumer:
        spawn = self._core.owner.spawn
        self._tasks.append(spawn(self._attachment.run, name=f"consumer of {self.stream}"))
        if self.options.single_active:
            name = f"single active consumer of {self.stream}"
            self._tasks.append(spawn(self._follow_updates, name=name))
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
        await self._end()

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                await task.wait()
            self._state.set(State.CLOSED)
            self._forget_chunks()
            self._arrived.set()

    def _gave_up(self, error: FlowstreamError) -> None:
        self._fail(error)

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        options = self.options
        try:
            nodes = await self._core.locate(self.stream)
        except StreamDoesNotExist:
            if self._state.value is State.RECOVERING:
                self._position, self._start = None, OffsetSpec.first()
            raise
        if not options.single_active:
            await self._settle_start()
        self._attempts += 1
        node = nodes.for_reader() if self._attempts % 2 else nodes.for_writer()
        self._place = place = await self._core.consuming.enter(node, self)
        self._check_supported(place.connection)
        start = self._start if self._position is None else OffsetSpec.offset(self._position)
        self._forget_chunks()
        self._credits = options.credit.initial
        self._accepting = True
        answer = await place.connection.request(
            lambda c: Subscribe(
                c, place.id, self.stream, start, options.credit.initial, options.properties()
            ),
            Response,
        )
        action = f'consume "{self.stream}"'
        check(answer.code, action, stream=self.stream, reference=options.name)
        self._attempts = 0

    async def _settle_start(self) -> None:
        """Makes offsets of "next" and "last": a loss before the first chunk then loses nothing."""
        if self._position is not None or self._start.kind not in (OffsetKind.NEXT, OffsetKind.LAST):
            return
        chunk = await probe(self._core, self.stream, OffsetSpec.last())
        if chunk is None:
            self._start = OffsetSpec.first()
        elif self._start.kind is OffsetKind.LAST:
            self._position = chunk.offset
        else:
            self._position = chunk.offset + chunk.records

    def _check_supported(self, connection: ClientConnection) -> None:
        options = self.options
        if options.filter_values and not connection.supports(Key.PUBLISH, 2):
            raise NotSupported("filter_values needs RabbitMQ 3.13 or later")
        if options.single_active and not connection.supports(Key.CONSUMER_UPDATE):
            raise NotSupported("single_active needs RabbitMQ 3.11 or later")

    async def _detach(self) -> None:
        """Gives the place back, and tells the broker where it may still know the subscription."""
        place, self._place = self._place, None
        self._accepting = False
        if place is None:
            return
        with anyio.CancelScope(shield=True):
            if place.connection.usable:
                timeout = self._core.settings.close_timeout
                try:
                    await place.connection.request(
                        lambda c: Unsubscribe(c, place.id), Response, timeout
                    )
                except (ConnectionClosed, RequestTimeout) as error:
                    log.debug("%r: %s", self, error)
            await self._core.consuming.leave(place)
