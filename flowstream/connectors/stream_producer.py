"""A stream as the source of a pipeline: resumed behind its stored offset, committed regularly."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import anyio

from flowstream.client import (
    Offset,
    StreamStatistics,
    kept_reference,
    offset_spec,
    through_losses,
)
from flowstream.connectors.amqp import AMQP
from flowstream.connectors.environment import (
    OnTruncated,
    StreamDelivery,
    StreamEnvironment,
    StreamLag,
    StreamReader,
    environment_of,
    refuse_super_stream,
)
from flowstream.connectors.filtering import Filter
from flowstream.connectors.start import Start, beyond, story_of, truncated, where_to_start
from flowstream.errors import (
    CommitNotVerified,
    ConfigurationError,
    ConnectionFailed,
    FlowstreamError,
    OffsetTruncated,
    RequestTimeout,
    StreamDoesNotExist,
    StreamNotAvailable,
)
from flowstream.pipeline import Backlog, Intake, Producer, RunContext, SourcePartition
from flowstream.schema import NAME, STREAM, checked, make, takes, whole
from flowstream.telemetry import StateChanged, Telemetry, Truncated, Warned
from flowstream.texts import describe

_log = logging.getLogger("flowstream.connectors")

SKIP_INTERVAL = 1.0
"""Seconds after which commits pass messages that a filter left out."""

VERIFY = 30.0
VERIFY_AGAIN = 0.2
"""Seconds in which an offset must be read back, and between two attempts."""


OFFSET = checked(
    lambda option, value: offset_spec(value, option=option),
    '"first", "last", "next", an offset, a datetime or a timedelta',
)


@dataclass(frozen=True, kw_only=True)
class StreamProducerOptions:
    """Options of sources that are streams."""

    reference: Annotated[
        str | None,
        NAME,
        "the name that offsets are stored under; None: the name of the pipeline",
    ] = None
    offset: Annotated[
        Offset,
        OFFSET,
        "where to begin if no offset is stored",
    ] = "first"
    credit: Annotated[
        int, whole(2, 32_767, unit="chunks"), "chunks that the broker may send ahead"
    ] = 10
    filter: Annotated[Filter | None, "which messages are wanted"] = None
    on_truncated: Annotated[
        OnTruncated, "what happens if retention removed messages that were not read"
    ] = "error"


@dataclass(frozen=True)
class StreamProducerArguments(StreamProducerOptions):
    """What `StreamProducer(...)` takes."""

    stream: Annotated[str, STREAM, "the stream to read"]


class StreamProducer(Producer):
    """Reads one stream, beginning behind its stored offset.

    `reference` is the name that offsets are stored under, by default the pipeline's name. `offset`
    says where to begin if none is stored: "first" (no message is skipped), "last", "next", an
    offset, a datetime (in the future: "next") or a timedelta (that long ago). The offset that this
    means is stored before the first message is handled. `credit` is how many chunks the broker may
    send ahead; they take memory in addition to `max_in_flight_bytes`. If retention removed messages
    before they were handled, while the pipeline was away or while it runs, the run ends with
    OffsetTruncated; with `on_truncated="skip"` the loss is logged and counted instead. Of AMQP 1.0
    messages the payload is the data section or the value.
    """

    resumable = True

    @takes(StreamProducerArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(StreamProducerArguments, arguments, values, type(self).__name__)
        self.stream: str = options.stream
        self.reference: str | None = options.reference
        self.offset: Offset = options.offset
        self.credit: int = options.credit
        self.filter: Filter | None = options.filter
        self.on_truncated = options.on_truncated
        self.lost: int = 0
        self._environment: StreamEnvironment | None = None
        self._name = options.reference or ""
        self._pipeline = ""
        self._consumed: list[str] = []
        self._telemetry = Telemetry()
        self._start = Start(0, known=True)
        self._consumer: StreamReader | None = None
        self._partition: SourcePartition | None = None
        self._same_at: dict[str, int] = {}
        """How often the consumer had lost its connection at the last check of its stream."""
        self._probes: dict[str, StreamLag] = {}
        self._ends: dict[str, StreamLag] = {}
        self._claimed: set[str] = set()
        self._claims: dict[str, set[int | None]] = {}
        """The numbers by which the reference was claimed for each stream, as far as known."""
        self._at_first: set[str] = set()
        """Streams that begin with offset 0, for which this is not stored yet."""
        self._known_same: set[str] = set()
        """Streams of which a message was sent: their offsets show whether they are the same."""
        self._sending = False
        """Whether a delivery waits for it. No stage has it yet, so the source is not idle."""

    async def open(self, context: RunContext) -> None:
        self._partition = None
        await self._enter(context)
        try:
            self._start = (await self._begin({self.stream: self.offset}))[self.stream]
        except OffsetTruncated as error:
            raise self._overtaken(error) from None
        except StreamDoesNotExist:
            await refuse_super_stream(
                self.environment, self.stream, f"StreamProducer({self.stream!r})",
                "and only SuperStreamProducer reads all of its partitions",
            )  # fmt: skip
            raise
        self._will_consume(self.stream)

    async def _enter(self, context: RunContext) -> None:
        self._at_first, self._probes, self._ends = set(), {}, {}
        self._same_at, self._known_same = {}, set()
        self._claimed, self._claims = set(), {}
        self._environment = await environment_of(context)
        self._name = self.reference or context.pipeline
        self._pipeline, self._telemetry = context.pipeline, context.telemetry

    def _will_consume(self, stream: str) -> None:
        """Note that a consumer is being opened: the run is not ready before it is open."""
        self._consumed.append(stream)
        self._telemetry.emit(StateChanged("consumer", stream, "connecting", "", 0.0))

    async def close(self) -> None:
        for stream in self._consumed:
            self._telemetry.emit(StateChanged("consumer", stream, "closed", "", 0.0))
        self._consumed.clear()
        self._environment = self._consumer = None

    async def run(self, intake: Intake) -> None:
        partition = self._partition = intake.open(
            self.stream, codec=AMQP, committed=self._start.committed
        )
        offset = (
            partition.next or self._start.offset
        )  # when it is run again, it continues behind what was taken in
        try:
            async with self.environment.consumer(
                self.stream, offset=offset, reference=self._name, **self._options(self._settled)
            ) as consumer:
                self._consumer = consumer
                async with aclosing(self._deliveries(consumer)) as deliveries:
                    async for delivery in deliveries:
                        await self._send(partition, delivery)
        except OffsetTruncated as error:
            raise self._overtaken(error) from None

    def _options(self, settled: Callable[[str], int | None]) -> dict[str, Any]:
        """The options of a consumer. `settled` gives it the watermark of the pipeline."""
        options: dict[str, Any] = {
            "credit": self.credit,
            "on_truncated": self.on_truncated,
            "settled": settled,
        }
        if self.filter is not None:
            options |= self.filter.options
        return options

    def _settled(self, stream: str) -> int | None:
        settled = None if self._partition is None else self._partition.settled
        return self._start.settled if settled is None else settled

    async def _deliveries(self, consumer: Any) -> AsyncGenerator[StreamDelivery, None]:
        """The deliveries. With a filter, commits regularly pass the messages that it left out."""
        if self.filter is None:
            async for delivery in consumer:
                yield delivery
            return
        due = anyio.current_time() + SKIP_INTERVAL
        while True:
            delivery = None
            with anyio.move_on_after(due - anyio.current_time()):
                try:
                    delivery = await anext(consumer)
                except StopAsyncIteration:
                    return
            if delivery is not None:
                yield delivery
            if anyio.current_time() >= due:
                await self._skip_left_out()
                due = anyio.current_time() + SKIP_INTERVAL

    async def _skip_left_out(self) -> None:
        """All delivered messages are sent: the others up to the position were filtered out."""
        if self._partition is not None and self._consumer is not None and self._consumer.position:
            self._partition.skip(self._consumer.position - 1)

    async def _send(self, partition: SourcePartition, delivery: StreamDelivery) -> None:
        self._sending = True
        try:
            known = delivery.stream in self._known_same
            if delivery.offset < partition.next or not (known or await self._is_same(delivery)):
                partition.close()
                raise StreamDoesNotExist(
                    f"{delivery.stream!r} was deleted and created again while pipeline "
                    f"{self._pipeline!r} read it, and its offsets start again at 0. Messages of "
                    "the old stream are handled, and no offset is stored for the new one. Start "
                    "the pipeline again: it begins where offset= says",
                    stream=delivery.stream,
                )
            if delivery.stream in self._at_first:
                await through_losses(
                    partial(self.environment.store_beginning, self._name, delivery.stream)
                )
                self._at_first.discard(delivery.stream)
            if delivery.lost:
                self._truncated(delivery.stream, delivery.lost)
            await send(partition, delivery)
        finally:
            self._sending = False

    async def _is_same(self, delivery: StreamDelivery) -> bool:
        """Whether the first delivery is of the stream whose stored offset was resumed.

        Before it the consumer cannot tell: after a loss it waits at that offset in a new stream,
        whose messages before it are skipped.
        """
        stream = delivery.stream
        losses = self._losses(stream)
        if losses is None:  # it is known later
            return True
        if losses and stream not in self._at_first:
            try:
                await through_losses(partial(self._check_same, stream, delivery.offset))
            except CommitNotVerified:
                return False
        self._known_same.add(stream)
        return True

    async def commit(self, stream: str, offset: int) -> None:
        losses = self._losses(stream)
        if losses is None or losses != self._same_at.get(stream, 0):
            await self._check_same(stream, offset)
            if losses is not None:
                self._same_at[stream] = losses
        await self._claim(stream)
        await self.environment.store_offset(self._name, stream, offset, keep=True)

    async def _claim(self, stream: str) -> None:
        """Before the first commit, and after a commit of another run: claim the reference."""
        if stream not in self._claimed:
            number = await self.environment.claim_reference(self._name, stream)
            self._claims.setdefault(stream, {None}).add(number)
            self._claimed.add(stream)

    async def is_shared(self, stream: str) -> bool:
        """Whether another run has claimed the reference. Older claims are known, because a new
        leader of the stream may not have received this run's own claim."""
        claimed = stream in self._claimed  # the answer may take long
        found = await self.environment.reference_claim(self._name, stream)
        known = self._claims.setdefault(stream, {None})
        shared = claimed and found not in known
        if shared:
            self._claimed.discard(
                stream
            )  # the next commit claims it again, so that the other run notices
        known.add(found)
        return shared

    def _losses(self, stream: str) -> int | None:
        """How often the consumer has lost its connection; None while it has none.

        Consumers of an environment for tests may not know it: they lose none.
        """
        losses: int | None = getattr(self._consumer, "losses", 0)
        return losses

    async def _check_same(self, stream: str, offset: int) -> int | None:
        """The stored offset. Raises CommitNotVerified if the stream is not the one that was read.

        A run stores where it began, and brokers never remove that. So if no offset is stored any
        more, the stream was deleted and created again, and with an offset of the old stream the
        next run would skip messages of the new one.
        """
        stored = await self.environment.query_beginning(self._name, stream)
        if stored is None and kept_reference(self._name) is not None:
            raise CommitNotVerified(
                f"{stream!r} was deleted and created again: offset {offset} of the old stream is "
                "not stored for the new one, where messages would be skipped"
            )
        return stored

    async def stored_offset(self, stream: str) -> int | None:
        return await self.environment.query_offset(self._name, stream)

    async def verify(self, stream: str, offset: int) -> None:
        if await self._read_back(stream, offset) != offset:
            await self.environment.store_offset_verified(self._name, stream, offset, keep=True)

    async def _read_back(self, stream: str, offset: int) -> int | None:
        """`_check_same`, repeated for VERIFY seconds, even if connections are lost."""
        deadline = anyio.current_time() + VERIFY
        while True:
            try:
                return await self._check_same(stream, offset)
            except (ConnectionFailed, RequestTimeout, StreamNotAvailable) as error:
                if anyio.current_time() > deadline:
                    raise CommitNotVerified(
                        f"offset {offset} of {self._name!r} on {stream!r} could not be read back: "
                        f"{error}"
                    ) from error
            await anyio.sleep(VERIFY_AGAIN)

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        # The position is read before asking, because messages may come meanwhile.
        return not self._sending and await self._is_read(self.stream, self._position())

    async def _is_read(self, stream: str, position: int) -> bool:
        """Whether the stream has no message that is wanted from `position` on, as far as known."""
        try:
            if self.filter is None:
                last = await self.environment.last_offset(stream)
                return last is None or last < position
            left = await self._probe(stream, self._ends).look(position - 1)
            return not left.messages
        except Exception as error:  # also of the filter's `match`, which ends the source then
            _log.debug(
                "%s: the end of the stream is not known: %s", stream, describe(error),
                extra={"stream": stream},
            )  # fmt: skip
            return False

    async def backlog(self, stream: str, behind: int | None) -> Backlog:
        active = behind is not None or self._reads_all
        if behind is None:
            behind = await self._done_with(stream)
        found = await self._probe(stream, self._probes).look(behind, partial(self._read_to, stream))
        return Backlog(behind, found.last, found.messages, found.written, active)

    def _read_to(self, stream: str) -> int:
        """The last offset that was taken in of the stream; -1 while a delivery is being sent."""
        source = self._source(stream)
        return -1 if self._sending or source is None else source.next - 1

    def _source(self, stream: str) -> SourcePartition | None:
        return self._partition

    def _probe(self, stream: str, probes: dict[str, StreamLag]) -> StreamLag:
        """The stream's probe among `probes`, which one task uses: a probe keeps what it counted."""
        if stream not in probes:
            options = {} if self.filter is None else self.filter.options
            probes[stream] = self.environment.lag_probe(stream, **options)
        return probes[stream]

    @property
    def _reads_all(self) -> bool:
        """Whether this process reads all streams, and no other process reads any."""
        return True

    async def _done_with(self, stream: str) -> int:
        """The last settled offset of a stream without a partition."""
        return self._start.settled

    def reads(self) -> Sequence[str]:
        return [self.stream]

    def describe(self) -> Mapping[str, Any]:
        return {
            "producer": type(self).__name__,
            "stream": self.stream,
            "reference": self.reference,
            "offset": str(self.offset),
            "credit": self.credit,
        }

    @property
    def environment(self) -> StreamEnvironment:
        if self._environment is None:
            raise ConfigurationError(f"{type(self).__name__} {self.stream!r} is not running")
        return self._environment

    def _position(self) -> int:
        """The next offset, as far as it is known."""
        position = None if self._consumer is None else self._consumer.position
        if position is not None:
            return position
        return self._start.offset

    async def _begin(self, places: Mapping[str, Offset]) -> dict[str, Start]:
        """Where to begin in each stream: behind the stored offset, or at the declared place.

        When it returns, these offsets are stored, except for streams that begin at offset 0
        because it is the first: "first" is the same place until a message has come. Raises
        OffsetTruncated.
        """
        starts = {stream: await self._where(stream, place) for stream, place in places.items()}
        new: dict[str, Start] = {}
        for stream, start in starts.items():
            first = self.offset in ("first", 0)
            if start.offset == 0 and first and not start.known:
                self._at_first.add(stream)
            elif not start.known or (start.offset == 0 and not first):
                new[stream] = (
                    start  # only the second number may say so, which consumers do not read
                )
        for stream, start in new.items():
            if start.lost:  # reported before it is stored, because afterwards it could not be seen
                self._truncated(stream, start.lost)
        store = partial(self._store_starts, new)
        if self._reads_all:
            await through_losses(store)
        else:  # another member may go on meanwhile: the consumer asks again only while it is active
            await store()
        for stream, start in starts.items():
            _log.info(
                f"{stream} {start.story}",
                extra={"pipeline": self._pipeline, "stream": stream, "offset": start.offset,
                       "reference": self._name},
            )  # fmt: skip
        return starts

    async def _store_starts(self, starts: Mapping[str, Start]) -> None:
        environment = self.environment
        if len(starts) > 1:  # in one write: a process killed meanwhile has stored all or none
            for stream, start in starts.items():
                await environment.store_offset(self._name, stream, start.settled, keep=True)
        for stream, start in starts.items():
            await environment.store_offset_verified(self._name, stream, start.settled, keep=True)

    async def _where(self, stream: str, place: Offset) -> Start:
        stored = await self._stored(stream)
        asked = 0 if stored is not None else await self._resolve(stream, place)
        statistics = await through_losses(partial(self.environment.stream_stats, stream))
        if stored is not None:
            await self._doubt(stream, stored, statistics)
        start = where_to_start(
            stream,
            self._name,
            stored=stored,
            asked=asked,
            first=statistics.first_offset,
            skip_truncated=self.on_truncated == "skip",
        )
        return replace(start, story=story_of(self._name, place, stored, start))

    async def _stored(self, stream: str) -> int | None:
        """The offset behind which a reader of the stream continues; None if none is stored."""
        return await through_losses(partial(self.environment.query_beginning, self._name, stream))

    async def _doubt(self, stream: str, stored: int, statistics: StreamStatistics) -> None:
        """Warn of a stored offset behind the end of the stream."""
        newest = statistics.committed_chunk_id
        if stored <= (-1 if newest is None else newest):
            return
        try:
            last = await self.environment.last_offset(stream)
        except FlowstreamError as error:
            _log.debug(
                "%s: the end of the stream is not known: %s", stream, error,
                extra={"stream": stream},
            )  # fmt: skip
            return
        text = beyond(stream, self._name, stored=stored, first=statistics.first_offset, last=last)
        if text:
            _log.warning(
                text,
                extra={"pipeline": self._pipeline, "stream": stream, "offset": stored},
            )  # fmt: skip
            self._telemetry.emit(Warned(self._pipeline, stream, text))

    async def _resolve(self, stream: str, place: Offset) -> int:
        """The offset of a place."""
        if isinstance(place, int):
            return place
        if isinstance(place, datetime) and place > datetime.now(UTC):
            _log.warning(
                "%s: offset=%s is in the future, so it begins with the next message", stream, place,
                extra={"stream": stream},
            )  # fmt: skip
        return await through_losses(partial(self.environment.resolve_offset, stream, place))

    def _overtaken(self, error: OffsetTruncated) -> OffsetTruncated:
        """Counts lost messages; its error says what a pipeline can do about them."""
        self._truncated(error.stream, error.first - error.stored - 1)
        return truncated(error.stream, self._name, error.stored, error.first)

    def _truncated(self, stream: str, lost: int) -> None:
        self.lost += lost
        self._telemetry.emit(Truncated(self._pipeline, stream, lost))


async def send(partition: SourcePartition, delivery: StreamDelivery) -> None:
    """Send a delivery to its partition. Returns when the pipeline has taken it in."""
    offsets = delivery.offsets
    await partition.send(
        delivery.bodies,
        offset=delivery.offset,
        offsets=None if isinstance(offsets, range) else offsets,
        timestamp=delivery.timestamp,
        tail=offsets[-1],
    )
