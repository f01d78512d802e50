"""An `Environment` without a broker: streams, stored offsets and publishers in memory.

    environment = MemoryEnvironment({"orders": [{"id": 1}, {"id": 2}, Pause(5), {"id": 3}]})
    await pipeline.run(environment=environment)

StreamProducer, SuperStreamProducer, StreamSink and DeadLetter run on it unchanged: it has what the
connectors use of `flowstream.client.Environment`.

A stream exists as soon as its name is used. Streams and offsets outlive a run, so the next run
resumes. Offsets have no gaps here; on a broker they may have, because storing an offset takes one.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from flowstream.client import Offset, Routing, StreamStatistics
from flowstream.errors import CommitNotVerified, StreamDoesNotExist
from flowstream.testing.memory_broker import MemoryBroker
from flowstream.testing.memory_consumers import (
    Match,
    MemoryConsumer,
    MemoryLagProbe,
    MemorySuperStreamConsumer,
)
from flowstream.testing.memory_publishers import MemoryPublisher, MemorySuperStreamPublisher


class MemoryEnvironment(MemoryBroker):
    """Streams by name, each with the messages and markers that `streams` gives it.

    Stored offsets are in `offsets`, by (reference, stream).
    """

    def __init__(
        self, streams: Mapping[str, Iterable[Any]] | None = None, *, chunk_size: int = 100
    ) -> None:
        super().__init__(streams, chunk_size=chunk_size)
        self._beginnings: set[tuple[str, str]] = set()
        self._claims: dict[tuple[str, str], int] = {}
        self._consumers: list[MemoryConsumer] = []

    @property
    def exhausted(self) -> bool:
        """Whether all present consumers have been given everything, markers included."""
        return not self._faults and all(consumer.at_end for consumer in self._consumers)

    @property
    def read(self) -> frozenset[str]:
        """The streams that have an open consumer."""
        return frozenset(consumer.stream for consumer in self._consumers)

    # -- streams

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

    async def resolve_offset(self, stream: str, offset: Offset) -> int:
        return self.stream(stream).locate(offset)

    async def partitions(self, super_stream: str) -> list[str]:
        return list(self.super_stream(super_stream))

    async def routing_of(self, super_stream: str) -> Routing:
        return "hash" if self.super_stream(super_stream)[0] == f"{super_stream}-0" else "key"

    # -- stored offsets

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

    async def forget_offset(self, reference: str, stream: str) -> None:
        await self.until_connected()
        self.offsets.pop((reference, stream), None)
        self._beginnings.discard((reference, stream))

    async def claim_reference(self, reference: str, stream: str) -> int | None:
        await self.until_connected()
        number = self._claims[reference, stream] = random.randrange(1 << 62, 1 << 63)
        return number

    async def reference_claim(self, reference: str, stream: str) -> int | None:
        await self.until_connected()
        return self._claims.get((reference, stream))

    # -- consumers and publishers

    @asynccontextmanager
    async def consumer(
        self,
        stream: str,
        *,
        offset: Offset = "first",
        match: Match | None = None,
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
        reference: str | None = None,
        offset: Offset = "first",
        match: Match | None = None,
        on_active: Callable[[str], Awaitable[Offset]] | None = None,
        on_truncated: str = "error",
        **_: Any,
    ) -> AsyncIterator[MemorySuperStreamConsumer]:
        consumers = []
        for partition in self.super_stream(super_stream):
            stored = None if reference is None else self.offsets.get((reference, partition))
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

    def lag_probe(self, stream: str, *, match: Match | None = None, **_: Any) -> MemoryLagProbe:
        return MemoryLagProbe(self, stream, match)

    @asynccontextmanager
    async def publisher(
        self, stream: str, *, reference: str | None = None, **_: Any
    ) -> AsyncIterator[MemoryPublisher]:
        yield MemoryPublisher(self, stream, reference)

    @asynccontextmanager
    async def super_stream_publisher(
        self, super_stream: str, *, routing: Routing = "hash", **_: Any
    ) -> AsyncIterator[MemorySuperStreamPublisher]:
        yield MemorySuperStreamPublisher(self, super_stream, routing)
