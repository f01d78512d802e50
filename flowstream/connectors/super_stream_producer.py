"""All partitions of a super stream as a pipeline's source, each with a watermark of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

import anyio

from flowstream.client import Offset, OffsetSpec, SuperStreamConsumer, offset_spec
from flowstream.connectors.amqp import AMQP
from flowstream.connectors.filtering import Filter
from flowstream.connectors.start import Start
from flowstream.connectors.stream_producer import StreamProducer, consumer_options, send
from flowstream.errors import FlowstreamError
from flowstream.pipeline import Feed, Lane, RunContext
from flowstream.telemetry import PartitionMoved

log = logging.getLogger("flowstream.connectors")

HAND_OVER = 45.0
"""Seconds a partition may take to drain before another consumer has it (the broker waits 60)."""


class SuperStreamProducer(StreamProducer):
    """Consumes the partitions of a super stream; order holds within a partition.

    With `single_active=True` the processes that run this pipeline share the partitions, and the
    broker moves them when processes come and go: a partition is drained, committed and verified
    before it is handed over, and resumed behind its stored offset. Other options are those of
    `StreamProducer`; `offset` counts for partitions without a stored offset.
    """

    def __init__(
        self,
        super_stream: str,
        *,
        reference: str | None = None,
        offset: Offset = "first",
        credit: int = 10,
        filter: Filter | None = None,
        single_active: bool = False,
        on_truncated: Literal["error", "skip"] = "error",
    ) -> None:
        super().__init__(
            super_stream,
            reference=reference,
            offset=offset,
            credit=credit,
            filter=filter,
            on_truncated=on_truncated,
        )
        self.single_active = single_active
        self._feed: Feed | None = None
        self._lanes: dict[str, Lane] = {}
        self._starts: dict[str, Start] = {}
        self._partitions: SuperStreamConsumer | None = None
        self._consuming = AsyncExitStack()

    async def open(self, context: RunContext) -> None:
        await self._enter(context)
        self._lanes, self._starts = {}, {}
        for partition in await self.environment.partitions(self.stream):
            self._starts[partition] = await self._where(partition)
            self._moved(partition, active=not self.single_active)
            self._will_consume(partition)

    async def run(self, feed: Feed) -> None:
        self._feed, self._lanes = feed, {}
        options = consumer_options(self.filter)
        if self.single_active:
            options |= {
                "single_active": True,
                "on_active": self._promoted,
                "on_inactive": self._demoted,
                "hand_over_timeout": HAND_OVER,
            }
        else:
            options["tracking"] = "manual"
        consumer = self._partitions = await self._consuming.enter_async_context(
            self.environment.super_stream_consumer(
                self.stream, name=self._name, offset=self.offset, credit=self.credit, **options
            )
        )
        try:
            async for delivery in consumer:
                lane = self._lanes.get(delivery.stream)
                if lane is None:
                    lane = self._open_lane(delivery.stream)
                await send(lane, delivery)
        except Exception:
            await self._leave()
            raise

    async def close(self) -> None:
        await self._leave()
        await super().close()
        self._starts = {}

    async def _leave(self) -> None:
        """Only now others get the partitions: a run that is stopped has drained and committed."""
        self._partitions = None
        await self._consuming.aclose()

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        if self.filter is not None or self._partitions is None:
            return self.filter is not None
        mine = self._partitions.active if self.single_active else self._partitions.partitions
        try:
            for partition in mine:
                last = await self.environment.last_offset(partition)
                if last is not None and last > self._reached(partition, positions):
                    return False
        except FlowstreamError as error:
            log.debug(
                "%s: the end of a partition is not known: %s", self.stream, error,
                extra={"stream": self.stream},
            )  # fmt: skip
            return False
        return True

    def reads(self) -> Sequence[str]:
        return list(self._starts) or [self.stream]

    def describe(self) -> Mapping[str, Any]:
        return {**super().describe(), "single_active": self.single_active}

    def _reached(self, partition: str, positions: Mapping[str, int | None]) -> int:
        """The last offset that was received or settled before."""
        position = positions.get(partition)
        start = self._starts.get(partition)
        stored = None if start is None else start.stored
        return max(-1 if position is None else position, -1 if stored is None else stored)

    def _open_lane(self, partition: str) -> Lane:
        assert self._feed is not None
        start = self._starts.get(partition)
        stored = None if start is None else start.stored
        lane = self._lanes[partition] = self._feed.open(partition, codec=AMQP, committed=stored)
        return lane

    async def _promoted(self, partition: str) -> OffsetSpec:
        """This process was given the partition: resume behind what its last owner committed."""
        start = self._starts[partition] = await self._where(partition)
        self._open_lane(partition)
        self._moved(partition, active=True)
        return offset_spec(start.offset)

    async def _demoted(self, partition: str) -> None:
        """The partition goes to another process, once what is in flight here is settled."""
        lane = self._lanes.pop(partition, None)
        if lane is None:
            return
        since = anyio.current_time()
        if not await lane.drain(HAND_OVER - 5):
            log.warning(
                "%s: handed over with messages in flight; they are repeated", partition,
                extra={"stream": partition},
            )  # fmt: skip
        self._moved(partition, active=False, seconds=anyio.current_time() - since)

    def _moved(self, partition: str, *, active: bool, seconds: float | None = None) -> None:
        event = PartitionMoved(self._pipeline, self.stream, partition, active, seconds)
        self._telemetry.emit(event)
