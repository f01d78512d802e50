"""An `Environment` without a broker: streams, stored offsets and publishers in memory.

    environment = MemoryEnvironment({"orders": [{"id": 1}, {"id": 2}, Pause(5), {"id": 3}]})
    await pipeline.run(environment=environment)

StreamProducer, SuperStreamProducer, StreamSink and DeadLetter are what they are in production.

It has what the connectors use of `flowstream.client.Environment`. A stream exists as soon as it is
named. What it keeps outlives runs, so the next run resumes. Offsets have no gaps; on a broker they
may (storing an offset takes one).
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio
import anyio.lowlevel

from flowstream.checks import check_whole
from flowstream.client import (
    Offset,
    Routing,
    StreamBacklog,
    StreamStatistics,
    hash_route,
    offset_spec,
)
from flowstream.errors import (
    CommitNotVerified,
    FlowstreamError,
    OffsetTruncated,
    PublishFailed,
    StreamDoesNotExist,
)
from flowstream.pipeline import Signal
from flowstream.testing.markers import Crash, Disconnect, Marker, Pause
from flowstream.testing.memory_stream import MemoryStream, encoded, milliseconds


class Crashed(FlowstreamError):
    """A `Crash()` marker was met, and nobody was there to kill the run (`PipelineTester` does)."""


@dataclass(frozen=True, slots=True)
class MemoryDelivery:
    """As `flowstream.client.Delivery`: messages of one chunk, trimmed and filtered."""

    stream: str
    offsets: Sequence[int]
    bodies: list[bytes]
    timestamp: int
    committed_chunk_id: int | None
    lost: int = 0

    @property
    def offset(self) -> int:
        return self.offsets[0]


class MemoryEnvironment:
    """Streams by name, each with what `streams` says is in it. Stored offsets are in `offsets`."""

    def __init__(
        self, streams: Mapping[str, Iterable[Any]] | None = None, *, chunk_size: int = 100
    ) -> None:
        check_whole("MemoryEnvironment chunk_size", chunk_size, 1)
        self.chunk_size = chunk_size
        self.offsets: dict[tuple[str, str], int] = {}
        self._beginnings: set[tuple[str, str]] = set()
        self._claims: dict[tuple[str, str], int] = {}
        self.deliveries: list[MemoryDelivery] = []
        self.disconnects = 0
        self.changed = Signal()
        self.on_crash: list[Callable[[], None]] = []
        self._streams: dict[str, MemoryStream] = {}
        self._super_streams: dict[str, list[str]] = {}
        self._sequences: dict[tuple[str, str], int] = {}
        self._consumers: list[MemoryConsumer] = []
        self._refusals: dict[str, int] = {}
        self._connected = True
        self._happening = 0
        for name, items in (streams or {}).items():
            self.append(name, items)

    # -- for tests

    def stream(self, name: str) -> MemoryStream:
        """The stream, created where it was not."""
        if name not in self._streams:
            self._streams[name] = MemoryStream(chunk_size=self.chunk_size)
        return self._streams[name]

    def super_stream(self, name: str, partitions: int | Sequence[str] = 3) -> list[str]:
        """Create a super stream where there is none; returns the names of its partitions."""
        if name not in self._super_streams:
            keys = range(partitions) if isinstance(partitions, int) else partitions
            self._super_streams[name] = [f"{name}-{key}" for key in keys]
        return self._super_streams[name]

    def append(
        self, name: str, items: Iterable[Any], *, timestamp: datetime | int | None = None
    ) -> range:
        """Add messages and markers to a stream; returns the messages' offsets.

        Bytes, str and AMQP messages are bodies, and everything else becomes JSON. `timestamp` is
        the chunks' time (now unless given), in milliseconds where it is a number.
        """
        now = int(time.time() * 1000) if timestamp is None else milliseconds(timestamp)
        offsets = self.stream(name).append(items, timestamp=now)
        self.changed.notify()
        return offsets

    def route(self, super_stream: str, key: str) -> str:
        """The partition of a key, by the hash that all clients use."""
        return hash_route(key, self.super_stream(super_stream))

    def refuse(self, stream: str, times: int = 1) -> None:
        """Publishing to the stream fails with PublishFailed, that many times from now on."""
        self._refusals[stream] = times

    @property
    def exhausted(self) -> bool:
        """Have the consumers that there are now been given everything, markers included?"""
        return not self._happening and all(consumer.at_end for consumer in self._consumers)

    # -- as an Environment

    async def stream_exists(self, name: str) -> bool:
        self.stream(name)
        return True

    async def create_stream(self, name: str, **_: Any) -> None:
        self.stream(name)

    async def delete_stream(self, name: str, *, missing_ok: bool = False) -> None:
        if self._streams.pop(name, None) is None and not missing_ok:
            raise StreamDoesNotExist(f'there is no stream "{name}" in memory', stream=name)

    async def stream_stats(self, name: str) -> StreamStatistics:
        stream = self.stream(name)
        return StreamStatistics(stream.first_offset, stream.last_chunk_id, {})

    async def last_offset(self, stream: str) -> int | None:
        return self.stream(stream).last_offset

    def lag_probe(
        self, stream: str, *, match: Callable[[bytes], bool] | None = None, **_: Any
    ) -> MemoryLagProbe:
        return MemoryLagProbe(self, stream, match)

    async def resolve_offset(self, stream: str, offset: Offset) -> int:
        return self.stream(stream).locate(offset)

    async def partitions(self, super_stream: str) -> list[str]:
        return list(self.super_stream(super_stream))

    async def query_offset(self, reference: str, stream: str) -> int | None:
        await self.until_connected()
        return self.offsets.get((reference, stream))

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        offset = await self.query_offset(reference, stream)
        return -1 if offset is None and (reference, stream) in self._beginnings else offset

    async def store_beginning(self, reference: str, stream: str) -> None:
        await self.until_connected()
        self._beginnings.add((reference, stream))

    async def store_offset(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        await self.until_connected()
        self.offsets[reference, stream] = offset

    async def store_offset_verified(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        await self.until_connected()
        if self.offsets.get((reference, stream)) != offset:
            await self.store_offset(reference, stream, offset)
        if self.offsets.get((reference, stream)) != offset:
            raise CommitNotVerified(
                f'offset {offset} of "{reference}" on "{stream}" was not stored'
            )

    async def claim_reference(self, reference: str, stream: str) -> int | None:
        await self.until_connected()
        number = self._claims[reference, stream] = random.randrange(1 << 62, 1 << 63)
        return number

    async def reference_claim(self, reference: str, stream: str) -> int | None:
        await self.until_connected()
        return self._claims.get((reference, stream))

    async def forget_offset(self, reference: str, stream: str) -> None:
        await self.until_connected()
        self.offsets.pop((reference, stream), None)
        self._beginnings.discard((reference, stream))

    @asynccontextmanager
    async def consumer(
        self,
        stream: str,
        *,
        offset: Offset = "first",
        match: Callable[[bytes], bool] | None = None,
        on_truncated: str = "error",
        **_: Any,
    ) -> AsyncIterator[MemoryConsumer]:
        consumer = MemoryConsumer(self, stream, offset, match, on_truncated)
        self._consumers.append(consumer)
        try:
            yield consumer
        finally:
            self._consumers.remove(consumer)

    @asynccontextmanager
    async def super_stream_consumer(
        self,
        super_stream: str,
        *,
        name: str | None = None,
        offset: Offset = "first",
        match: Callable[[bytes], bool] | None = None,
        on_active: Callable[[str], Any] | None = None,
        on_truncated: str = "error",
        **_: Any,
    ) -> AsyncIterator[MemorySuperStreamConsumer]:
        consumers = []
        for partition in self.super_stream(super_stream):
            stored = None if name is None else self.offsets.get((name, partition))
            start: Offset = offset if stored is None else stored + 1
            if on_active is not None:
                start = await on_active(partition)
            consumers.append(MemoryConsumer(self, partition, start, match, on_truncated))
        self._consumers.extend(consumers)
        try:
            yield MemorySuperStreamConsumer(self, consumers)
        finally:
            for consumer in consumers:
                self._consumers.remove(consumer)

    @asynccontextmanager
    async def publisher(
        self, stream: str, *, reference: str | None = None, **_: Any
    ) -> AsyncIterator[MemoryPublisher]:
        yield MemoryPublisher(self, stream, reference, self._sequences)

    async def routing_of(self, super_stream: str) -> Routing:
        return "hash" if self.super_stream(super_stream)[0] == f"{super_stream}-0" else "key"

    @asynccontextmanager
    async def super_stream_publisher(
        self, super_stream: str, *, routing: Routing = "hash", **_: Any
    ) -> AsyncIterator[MemorySuperStreamPublisher]:
        yield MemorySuperStreamPublisher(self, super_stream, routing)

    # -- what happens

    def check_refusal(self, stream: str) -> None:
        """Raise PublishFailed where `refuse` said so."""
        if self._refusals.get(stream, 0) > 0:
            self._refusals[stream] -= 1
            raise PublishFailed(f'"{stream}" refused a message, as the test wanted', stream=stream)

    async def until_connected(self) -> None:
        """Wait while the connection is broken."""
        await anyio.lowlevel.checkpoint()
        while not self._connected:
            await self.changed.wait()

    async def next_of(self, take: Callable[[], MemoryDelivery | Marker | None]) -> MemoryDelivery:
        """The next delivery that `take` gives; what markers say happens meanwhile."""
        while True:
            found = take()
            if isinstance(found, Marker):
                await self._happens(found)
            elif found is not None:
                await self.until_connected()
                return found
            else:
                await self.changed.wait()

    async def _happens(self, marker: Marker) -> None:
        self._happening += 1
        try:
            if isinstance(marker, Pause):
                await anyio.sleep(marker.seconds)
            elif isinstance(marker, Disconnect):
                await self._disconnect(marker.seconds)
            elif isinstance(marker, Crash):
                await self._crash()
        finally:
            self._happening -= 1
        self.changed.notify()

    async def _disconnect(self, seconds: float) -> None:
        self.disconnects += 1
        self._connected = False
        try:
            await anyio.sleep(seconds)
        finally:
            self._connected = True

    async def _crash(self) -> None:
        if not self.on_crash:
            raise Crashed("a Crash() marker was met outside of a PipelineTester")
        for callback in self.on_crash:
            callback()
        await anyio.sleep_forever()


class MemoryLagProbe:
    """As `flowstream.client.LagProbe`."""

    def __init__(
        self, environment: MemoryEnvironment, stream: str, match: Callable[[bytes], bool] | None
    ) -> None:
        self.stream = stream
        self._environment = environment
        self._match = match

    async def look(self, behind: int) -> StreamBacklog:
        """What the stream holds behind the offset now."""
        await self._environment.until_connected()
        log = self._environment.stream(self.stream)
        messages, written = 0, None
        for chunk in log.chunks_behind(behind):
            bodies: Sequence[bytes] = chunk.bodies[max(behind + 1 - chunk.offset, 0) :]
            count = len(bodies) if self._match is None else sum(map(bool, map(self._match, bodies)))
            if count and written is None:
                written = chunk.timestamp
            messages += count
        return StreamBacklog(log.last_offset, messages, written)


class MemoryConsumer:
    """As `flowstream.client.Consumer`: deliveries from an offset on, without end."""

    losses = 0

    def __init__(
        self,
        environment: MemoryEnvironment,
        stream: str,
        offset: Offset,
        match: Callable[[bytes], bool] | None,
        on_truncated: str,
    ) -> None:
        self.stream = stream
        spec = offset_spec(offset)
        number = spec.value if spec.kind.name == "OFFSET" else None
        self.position = environment.stream(stream).locate(offset) if number is None else number
        self.lost = 0
        self._on_truncated = on_truncated
        self._untold = 0
        self._environment = environment
        self._match = match
        self._log.forget_markers(self.position)

    @property
    def at_end(self) -> bool:
        return self.position >= self._log.next_offset and not self._log.markers

    def __aiter__(self) -> MemoryConsumer:
        return self

    async def __anext__(self) -> MemoryDelivery:
        return await self._environment.next_of(self.take)

    def take(self) -> MemoryDelivery | Marker | None:
        """What comes next; None when there is nothing now."""
        log = self._log
        while True:
            marker = log.take_marker(self.position)
            if marker is not None:
                return marker
            chunk = log.chunk_at(self.position)
            if chunk is None:
                return None
            start = max(self.position, chunk.offset)
            if start > self.position:
                self._overtaken(start)
            self.position = chunk.last + 1
            bodies = list(chunk.bodies[start - chunk.offset :])
            offsets: Sequence[int] = range(start, self.position)
            if self._match is not None:
                kept = [(o, b) for o, b in zip(offsets, bodies, strict=True) if self._match(b)]
                offsets, bodies = [o for o, _ in kept], [b for _, b in kept]
            if bodies:
                delivery = MemoryDelivery(
                    self.stream, offsets, bodies, chunk.timestamp, log.last_chunk_id, self._untold
                )
                self._untold = 0
                self._environment.deliveries.append(delivery)
                return delivery

    def _overtaken(self, first: int) -> None:
        """Messages were truncated before they were read; raises unless that is accepted."""
        lost = first - self.position
        self.lost += lost
        if self._on_truncated == "error":
            raise OffsetTruncated(
                f"{self.stream!r} was truncated up to offset {first}, and {self.position} was next",
                stream=self.stream,
                stored=self.position - 1,
                first=first,
            )
        self._untold += lost

    @property
    def _log(self) -> MemoryStream:
        return self._environment.stream(self.stream)


class MemorySuperStreamConsumer:
    """As `flowstream.client.SuperStreamConsumer`; all partitions are this consumer's."""

    def __init__(self, environment: MemoryEnvironment, consumers: list[MemoryConsumer]) -> None:
        self._environment = environment
        self._turn = consumers
        self.partitions = [consumer.stream for consumer in consumers]
        self.active = self.partitions

    @property
    def positions(self) -> dict[str, int | None]:
        return {consumer.stream: consumer.position for consumer in self._turn}

    @property
    def losses(self) -> dict[str, int | None]:
        return {consumer.stream: consumer.losses for consumer in self._turn}

    def __aiter__(self) -> MemorySuperStreamConsumer:
        return self

    async def __anext__(self) -> MemoryDelivery:
        return await self._environment.next_of(self._take)

    def _take(self) -> MemoryDelivery | Marker | None:
        """From the first in turn that has something; it goes to the end then."""
        for place, consumer in enumerate(self._turn):
            found = consumer.take()
            if found is not None:
                self._turn = [*self._turn[:place], *self._turn[place + 1 :], consumer]
                return found
        return None


class MemorySuperStreamPublisher:
    """As `flowstream.client.SuperStreamPublisher`, for bodies that come with their keys."""

    def __init__(self, environment: MemoryEnvironment, super_stream: str, routing: Routing) -> None:
        self.super_stream = super_stream
        self._environment = environment
        self._routing = routing

    async def partitions_of(self, key: str) -> Sequence[str]:
        """As the client's; a routing key is bound to the partition that is named with it."""
        if self._routing == "hash":
            return (self._environment.route(self.super_stream, key),)
        bound = f"{self.super_stream}-{key}"
        if bound not in self._environment.super_stream(self.super_stream):
            raise PublishFailed(f'no partition of "{self.super_stream}" is bound with {key!r}')
        return (bound,)

    async def publish_many(self, bodies: Sequence[Any], *, keys: Sequence[str]) -> None:
        await self._environment.until_connected()
        routed = [
            (await self.partitions_of(key), body) for key, body in zip(keys, bodies, strict=True)
        ]
        for (stream,), _ in routed:
            self._environment.check_refusal(stream)
        for (stream,), body in routed:
            self._environment.append(stream, [encoded(body)])


class MemoryPublisher:
    """As `flowstream.client.Publisher`; everything is confirmed as soon as it is sent.

    With a reference, publishing ids that are not above the last one are duplicates and left out.
    """

    def __init__(
        self,
        environment: MemoryEnvironment,
        stream: str,
        reference: str | None,
        sequences: dict[tuple[str, str], int],
    ) -> None:
        self.stream = stream
        self._environment = environment
        self._reference = reference
        self._sequences = sequences

    max_body: int | None = None

    @property
    def last_publishing_id(self) -> int | None:
        """The highest id of the reference, 0 where there is none; None without reference."""
        if self._reference is None:
            return None
        return self._sequences.get((self._reference, self.stream), 0)

    async def publish(self, body: Any, *, publishing_id: int | None = None, **_: Any) -> None:
        ids = None if publishing_id is None else [publishing_id]
        await self.publish_many([body], publishing_ids=ids)

    async def publish_many(
        self, bodies: Sequence[Any], *, publishing_ids: Sequence[int] | None = None, **_: Any
    ) -> None:
        await self._environment.until_connected()
        self._environment.check_refusal(self.stream)
        if self._reference is not None and publishing_ids is not None:
            bodies = self._new(bodies, publishing_ids, self._reference)
        self._environment.append(self.stream, [encoded(body) for body in bodies])

    send, send_many = publish, publish_many

    async def flush(self) -> None:
        await self._environment.until_connected()

    def _new(self, bodies: Sequence[Any], ids: Sequence[int], reference: str) -> list[Any]:
        key = reference, self.stream
        new = []
        for body, publishing_id in zip(bodies, ids, strict=True):
            if publishing_id > self._sequences.get(key, -1):
                self._sequences[key] = publishing_id
                new.append(body)
        return new
