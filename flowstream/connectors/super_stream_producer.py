"""A super stream as the source of a pipeline, with a watermark for each partition."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any

import anyio

from flowstream.client import Offset, OffsetSpec, through_losses
from flowstream.connectors.amqp import AMQP
from flowstream.connectors.environment import SuperStreamReader
from flowstream.connectors.start import Start
from flowstream.connectors.stream_producer import StreamProducer, StreamProducerOptions
from flowstream.errors import FlowstreamError, OffsetTruncated
from flowstream.pipeline import Intake, RunContext, SourcePartition
from flowstream.schema import NAME, make, part, takes
from flowstream.telemetry import PartitionMoved, SubscribedAgain
from flowstream.texts import describe, plural

_log = logging.getLogger("flowstream.connectors")

HAND_OVER = 45.0
"""Seconds in which a partition must drain before another consumer gets it (brokers wait 60)."""


@dataclass(frozen=True)
class SuperStreamProducerArguments(StreamProducerOptions):
    """What `SuperStreamProducer(...)` takes."""

    super_stream: Annotated[str, NAME, "the super stream to read"]
    _: KW_ONLY
    single_active: Annotated[
        bool, "share the partitions with other processes that use the same reference"
    ] = False


class SuperStreamProducer(StreamProducer):
    """Reads the partitions of a super stream. The order is kept within a partition.

    With `single_active=True` the processes that run this pipeline share the partitions, and the
    broker moves them when processes come and go: a partition is drained, committed and verified
    before it is handed over, and resumed behind its stored offset. Other options are those of
    `StreamProducer`; `offset` counts if no offset is stored. Partitions that are added later are
    handled from their first message on.
    """

    resumable = (
        False  # partitions that it leaves go to others, which begin behind the stored offsets
    )

    @takes(SuperStreamProducerArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(SuperStreamProducerArguments, arguments, values, type(self).__name__)
        shared = part(StreamProducerOptions, options)
        super().__init__(options.super_stream, **vars(shared))
        self.single_active: bool = options.single_active
        self._intake: Intake | None = None
        self._sources: dict[str, SourcePartition] = {}
        self._starts: dict[str, Start] = {}
        self._known: set[str] = set()
        self._handing_over: dict[str, anyio.Lock] = {}
        self._partitions: SuperStreamReader | None = None
        self._consuming = AsyncExitStack()
        self._turn: Callable[[], Awaitable[None]] | None = None
        self._behind = ""

    def subscribe_after(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Await `turn` before subscribing, so that processes can do so one after the other.

        The broker assigns partitions by the order in which processes subscribed. If they overtake
        each other, some get too many partitions, and others none.
        """
        self._turn = turn

    @property
    def subscribed(self) -> bool:
        """Whether it has subscribed to all partitions; the broker decides which ones it reads."""
        consumer = self._partitions
        return consumer is not None and set(consumer.partitions) <= consumer.positions.keys()

    async def subscribe_again(self) -> None:
        """Become the last one in the order of subscription; what it reads is handed over."""
        if self._partitions is not None:
            await self._partitions.subscribe_again()
            self._telemetry.emit(SubscribedAgain(self._pipeline, self.stream))

    async def open(self, context: RunContext) -> None:
        await self._enter(context)
        partitions = await through_losses(partial(self.environment.partitions, self.stream))
        self._sources, self._starts, self._known = {}, {}, set(partitions)
        if not self.single_active:
            try:
                self._starts = await self._begin(await self._places(partitions))
            except OffsetTruncated as error:
                raise self._overtaken(error) from None
        for partition in partitions:
            self._moved(partition, active=not self.single_active)
            self._will_consume(partition)
        if self.single_active:
            _log.info(
                "%s has %s: this process joins the group with reference %s, and gets those that "
                "the broker gives it", self.stream, plural(len(partitions), "partition"),
                self._name,
                extra={"pipeline": self._pipeline, "super_stream": self.stream},
            )  # fmt: skip

    async def _places(self, partitions: Sequence[str]) -> dict[str, Offset]:
        """Where to begin if no offset is stored.

        A start stores an offset for every partition. So a partition without one, beside others
        that have one, was added while the pipeline was away, and all its messages are new.
        """
        stored = [await self._stored(each) for each in partitions]
        away = any(offset is not None for offset in stored)
        return dict.fromkeys(partitions, "first" if away else self.offset)

    async def run(self, intake: Intake) -> None:
        self._intake, self._sources = intake, {}
        options = self._options(self._settled)
        if self.single_active:
            options |= {
                "single_active": True,
                "on_active": self._promoted,
                "on_inactive": self._demoted,
                "hand_over_timeout": HAND_OVER,
            }
        else:
            options |= {"tracking": "manual", "offset": self.offset}
        if self._turn is not None:
            await self._turn()
        try:
            consumer = self._partitions = await self._consuming.enter_async_context(
                self.environment.super_stream_consumer(self.stream, reference=self._name, **options)
            )
            async with aclosing(self._deliveries(consumer)) as deliveries:
                async for delivery in deliveries:
                    await self._send(await self._source_of(delivery.stream), delivery)
        except OffsetTruncated as error:
            await self._give_up()
            raise self._overtaken(error) from None
        except Exception:
            await self._give_up()
            raise

    async def _give_up(self) -> None:
        """The source failed: other members get its partitions, as in a hand-over.

        Leaving at once would cut off a hand-over that the broker has requested.
        """
        if self.single_active:
            async with anyio.create_task_group() as group:
                for partition in {*self._sources, *self._handing_over}:
                    group.start_soon(self._demoted, partition)
        await self._leave()

    async def close(self) -> None:
        await self._leave()
        await super().close()
        self._known = set()

    async def _leave(self) -> None:
        """Leave the group only now, when a stopped run has drained and committed."""
        self._partitions = None
        await self._consuming.aclose()

    async def stored_offset(self, stream: str) -> int | None:
        """In a group others store offsets, too: the next owner of a partition may do so before this
        process has noticed that it lost its connection."""
        return None if self.single_active else await super().stored_offset(stream)

    async def is_shared(self, stream: str) -> bool:
        return False if self.single_active else await super().is_shared(stream)

    async def _claim(self, stream: str) -> None:
        if not self.single_active:
            await super()._claim(stream)

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        if self._sending or self._partitions is None:
            return False
        if not set(self._partitions.partitions) <= self._partitions.positions.keys():
            return False  # others are still being opened, and may come to this process
        if self._partitions.moving:
            return False  # it may take long until it is known where to begin
        every = self._partitions.partitions
        mine = self._partitions.active if self.single_active else every
        for partition in mine:
            if not await self._is_read(partition, self._next(partition, positions)):
                return False
        others = [each for each in every if each not in mine]
        # This is called often while others have much to do, so what was behind is asked for first.
        for partition in sorted(others, key=lambda each: each != self._behind):
            if not await self._is_done(partition):
                self._behind = partition
                return False
        return True

    async def _is_done(self, partition: str) -> bool:
        """Whether others have settled all of a partition, and stored that."""
        try:
            settled = await self._done_with(partition)
        except FlowstreamError as error:
            _log.debug(
                "%s: the stored offset is not known: %s", partition, describe(error),
                extra={"stream": partition},
            )  # fmt: skip
            return False
        return await self._is_read(partition, settled + 1)

    @property
    def _reads_all(self) -> bool:
        return not self.single_active

    async def _done_with(self, stream: str) -> int:
        """The stored offset of a partition that another process may read."""
        start = self._starts.get(stream)
        if start is not None and self._reads_all:
            return start.settled
        stored = await self.environment.query_beginning(self._name, stream)
        return -1 if stored is None else stored

    def _source(self, stream: str) -> SourcePartition | None:
        return self._sources.get(stream)

    def reads(self) -> Sequence[str]:
        return sorted(self._known) or [self.stream]

    def _losses(self, stream: str) -> int | None:
        losses: dict[str, int | None] | None = getattr(self._partitions, "losses", None)
        return 0 if losses is None else losses.get(stream)

    def describe(self) -> Mapping[str, Any]:
        return {**super().describe(), "single_active": self.single_active}

    def _next(self, partition: str, received: Mapping[str, int | None]) -> int:
        """The offset behind what was received, or settled before this run. With a filter also
        behind what it left out."""
        last, start = received.get(partition), self._starts.get(partition)
        read = None
        if self.filter is not None and self._partitions is not None:
            read = self._partitions.positions.get(partition)
        return max(0 if last is None else last + 1, start.offset if start else 0, read or 0)

    async def _skip_left_out(self) -> None:
        if self._partitions is None:
            return
        positions = self._partitions.positions
        for stream in self._partitions.active:  # other processes commit the others
            if position := positions[stream]:
                (await self._source_of(stream)).skip(position - 1)

    def _settled(self, stream: str) -> int | None:
        source = self._sources.get(stream)
        settled = None if source is None else source.settled
        start = self._starts.get(stream)
        return settled if start is None or settled is not None else start.settled

    async def _source_of(self, partition: str) -> SourcePartition:
        """The source of a partition. Where one begins that was added meanwhile is stored first."""
        source = self._sources.get(partition)
        if source is not None:
            return source
        if partition not in self._starts:
            self._starts |= await self._begin({partition: "first"})
        return self._open_partition(partition)

    def _open_partition(self, partition: str) -> SourcePartition:
        assert self._intake is not None
        start = self._starts.get(partition)
        committed = None if start is None else start.committed
        source = self._sources[partition] = self._intake.open(
            partition, codec=AMQP, committed=committed
        )
        return source

    async def _promoted(self, partition: str) -> OffsetSpec:
        """The broker assigned the partition: resume behind the offset of its last owner."""
        place = self.offset if partition in self._known else "first"
        self._starts |= await self._begin({partition: place})
        self._open_partition(partition)
        self._moved(partition, active=True)
        _log.info(
            "%s came to this process, of the group with reference %s", partition, self._name,
            extra={"pipeline": self._pipeline, "stream": partition, "reference": self._name},
        )  # fmt: skip
        return OffsetSpec.offset(self._starts[partition].offset)

    async def _demoted(self, partition: str) -> None:
        """Hand the partition over, once its messages in flight are settled."""
        async with self._handing_over.setdefault(partition, anyio.Lock()):
            source = self._sources.get(partition)
            if source is not None:
                await self._hand_over(partition, source)
                # Only now: if a stop cuts this off, whoever waits for the lock continues it.
                if self._sources.get(partition) is source:
                    del self._sources[partition]

    async def _hand_over(self, partition: str, source: SourcePartition) -> None:
        """Hand the partition over to the process that the broker chose, or after a loss to any."""
        lost = self._losses(partition) is None
        since = anyio.current_time()
        await source.drain(HAND_OVER - 5, lost=lost)
        seconds = anyio.current_time() - since
        self._moved(partition, active=False, seconds=seconds, lost=lost)
        settled = self._settled(partition) if source.settled is None else source.settled
        up_to = "nothing of it was settled" if settled is None else f"settled up to {settled:,}"
        why = f"handed over to others of reference {self._name} in {seconds:.2f} s"
        if lost:
            why = f"its connection is lost, so that others of reference {self._name} may get it"
        _log.info(
            "%s left this process, %s: %s", partition, why, up_to,
            extra={"pipeline": self._pipeline, "stream": partition, "offset": settled,
                   "seconds": round(seconds, 3)},
        )  # fmt: skip

    def _moved(
        self, partition: str, *, active: bool, seconds: float | None = None, lost: bool = False
    ) -> None:
        event = PartitionMoved(self._pipeline, self.stream, partition, active, seconds, lost)
        self._telemetry.emit(event)
