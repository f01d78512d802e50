"""How far a run is behind: messages taken in and not settled, and those still in its streams.

The first part is counted exactly. For the second the producer is asked every few seconds about each
of its streams, even if it is paused, its window is full, or another process reads the stream.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import anyio

from flowstream.errors import ConnectionFailed, RequestTimeout
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.producer import Backlog, Producer
from flowstream.pipeline.running.statistics import PartitionStatistics
from flowstream.pipeline.stages.source import Partition, Source
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.texts import describe

INTERVAL = 3.0
MOST_PER_SECOND = 50
"""Seconds between two look-ups of a stream. With many streams they are further apart, so that there
are no more than this in a second."""

AT_ONCE = 8

REMEMBERED = 10
"""How many look-ups give the pace of catching up: those of half a minute."""

RECENT = 4


@dataclass(frozen=True, slots=True)
class Look:
    """The producer's answer about a stream, and how many messages `partition` had taken in then
    (None: the stream had no partition)."""

    backlog: Backlog
    partition: Partition | None
    taken: int

    def left(self, partition: Partition) -> int:
        """Messages in the stream behind those that the partition has taken in."""
        last = self.backlog.last
        if last is None or partition.end > last:
            return 0
        if partition is not self.partition:
            return last - partition.reached
        return max(self.backlog.messages - (partition.taken - self.taken), 0)


class LagWatch:
    """Measures the lag of the streams of one run, whose messages come through `source`."""

    def __init__(self, state: RunState, producer: Producer, source: Source) -> None:
        self._state = state
        self._producer = producer
        self._source = source
        self._looks: dict[str, Look] = {}
        self._untold: set[str] = set()
        self._history: dict[str, deque[tuple[float, int]]] = {}
        self._asks = type(producer).backlog is not Producer.backlog

    # -- look-ups

    async def run(self) -> None:
        """Look up until cancelled. An error here never ends a run."""
        while self._asks:
            began = self._state.clock()
            partitions = _open(self._source.partitions)
            streams = [*dict.fromkeys((*(self._producer.reads() or ()), *partitions))]
            for gone in self._looks.keys() - set(streams):
                del self._looks[gone], self._history[gone]
            left = iter(streams)
            async with anyio.create_task_group() as group:
                for _ in range(min(AT_ONCE, len(streams))):
                    group.start_soon(self._look_at, left)
            pause = max(INTERVAL, len(streams) / MOST_PER_SECOND)
            await anyio.sleep(max(pause - (self._state.clock() - began), INTERVAL / 3))

    async def _look_at(self, streams: Iterator[str]) -> None:
        """Look up one stream after the other; stop if there is no broker."""
        for stream in streams:
            try:
                await self._look(stream)
            except Exception as error:
                if passes(error):
                    raise
                log.debug(
                    "pipeline %r: the lag of %s is not known at the moment: %s",
                    self._state.name, stream, describe(error),
                    extra={"pipeline": self._state.name, "stream": stream},
                )  # fmt: skip
                if isinstance(error, ConnectionFailed | RequestTimeout):
                    return

    async def _look(self, stream: str) -> None:
        partition = _open(self._source.partitions).get(stream)
        behind, taken = (None, 0) if partition is None else (partition.reached, partition.taken)
        backlog = await self._producer.backlog(stream, behind)
        if backlog is None:
            self._untold.add(stream)
            return
        look = self._looks[stream] = Look(backlog, partition, taken)
        if partition is not None and backlog.last is not None:
            partition.tail = max(backlog.last, -1 if partition.tail is None else partition.tail)
        lag = (
            look.backlog.messages
            if partition is None
            else partition.mark.repeated + look.left(partition)
        )
        history = self._history.setdefault(stream, deque(maxlen=REMEMBERED))
        history.append((self._state.clock(), lag))

    # -- figures

    def statistics(self) -> tuple[PartitionStatistics, ...]:
        """Figures of each partition, and of each stream without a partition in this run."""
        partitions = self._source.partitions
        current = {partition.stream: partition for partition in partitions} | _open(partitions)
        found = [
            self._partition(partition, partition is current[partition.stream])
            for partition in partitions
        ]
        found += [
            self._elsewhere(stream, look)
            for stream, look in self._looks.items()
            if stream not in current
        ]
        return tuple(found)

    def _partition(self, partition: Partition, current: bool) -> PartitionStatistics:
        watermark, oldest = partition.mark.value, partition.mark.open
        look = self._looks.get(partition.stream)
        left = self._left(partition, look) if current else 0
        lag = None if left is None else partition.mark.repeated + left
        written: int | None = None
        if oldest is not None:
            written = oldest.timestamp
        elif left and look is not None:
            written = look.backlog.written
        return PartitionStatistics(
            stream=partition.stream,
            received=partition.end - 1 if partition.end else None,
            watermark=watermark,
            committed=None if partition.tracker is None else partition.tracker.committed,
            tail=partition.tail,
            lag=lag,
            lag_seconds=_age(written, oldest is not None or bool(left), known=lag is not None),
            deliveries=len(partition.mark),
            oldest=0.0 if oldest is None else self._state.now - oldest.arrived,
            catch_up=self._catch_up(partition.stream, lag),
        )

    def _left(self, partition: Partition, look: Look | None) -> int | None:
        """Messages that the partition has not taken in; None if it is not known."""
        if look is not None and look.partition is None and partition.closed:  # being handed over
            return max(look.backlog.messages - partition.mark.repeated, 0)
        if look is not None:
            return look.left(partition)
        asked = self._asks and partition.stream not in self._untold
        if asked or partition.tail is None:
            return None
        return max(partition.tail - partition.reached, 0)

    def _elsewhere(self, stream: str, look: Look) -> PartitionStatistics:
        """The figures of a stream without a partition. If the last look-up was before the partition
        left, because the broker was lost, the offset settled then is the newest known."""
        backlog = look.backlog
        if look.partition is not None:
            return replace(self._partition(look.partition, True), active=False)
        return PartitionStatistics(
            stream=stream,
            received=None,
            watermark=None,
            committed=None if backlog.behind < 0 else backlog.behind,
            tail=backlog.last,
            lag=backlog.messages,
            lag_seconds=_age(backlog.written, backlog.messages > 0),
            deliveries=0,
            oldest=0.0,
            catch_up=self._catch_up(stream, backlog.messages),
            active=backlog.active,
        )

    def _catch_up(self, stream: str, lag: int | None) -> float | None:
        history = self._history.get(stream)
        if lag is None or not history or (lag and self._source.paused):
            return None
        return catch_up([*history, (self._state.now, lag)])


def catch_up(history: Iterable[tuple[float, int]]) -> float | None:
    """Seconds until the lag is 0 if it keeps falling as in `history`, None if it does not fall.

    `history` has times and messages, in order.

    The slower pace counts: over all samples, or over the last RECENT ones. Pure.
    """
    samples = [*history]
    now, lag = samples[-1]
    if not lag:
        return 0.0
    times = []
    for began, before in (samples[0], samples[-RECENT:][0]):
        if lag >= before or now <= began:
            return None
        times.append(lag * (now - began) / (before - lag))
    return max(times)


def _open(partitions: Iterable[Partition]) -> dict[str, Partition]:
    """The open partition of each stream. A producer that is run again opens another one."""
    return {partition.stream: partition for partition in partitions if not partition.closed}


def _age(written: int | None, waiting: bool, *, known: bool = True) -> float | None:
    """Seconds since then; 0 if nothing waits, None if that or the time is not known."""
    if waiting:
        return max(time.time() - written / 1000, 0.0) if written else None
    return 0.0 if known else None
