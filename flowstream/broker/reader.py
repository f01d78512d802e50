"""Reads durable chunks: the newest from memory, older ones from the store.

A position is the id of a chunk, which is the offset of its first message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio

from flowstream.broker.records import StoredChunk
from flowstream.broker.store import Filter, Store
from flowstream.broker.stream import Stream
from flowstream.protocol import OffsetKind, OffsetSpec

T = TypeVar("T")

READ_BYTES = 1 << 20
"""One read gives about this many bytes: what a slow consumer holds in memory."""
_READER_THREADS = 2


class ChunkCache:
    """Keeps the newest chunks, up to `max_bytes`: consumers at the tail need no disk."""

    __slots__ = ("_chunks", "bytes", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: int = max_bytes
        self.bytes: int = 0
        self._chunks: dict[tuple[int, int], StoredChunk] = {}

    def add(self, stream: int, chunk: StoredChunk) -> None:
        """Keep the chunk; the chunks that were added first make room for it."""
        self._chunks[stream, chunk.chunk_id] = chunk
        self.bytes += len(chunk.blob)
        while self.bytes > self.max_bytes:
            oldest = next(iter(self._chunks))
            self.bytes -= len(self._chunks.pop(oldest).blob)

    def get(self, stream: int, chunk_id: int) -> StoredChunk | None:
        return self._chunks.get((stream, chunk_id))


class ChunkReader:
    """Finds and reads the chunks of one store through one cache."""

    def __init__(self, store: Store, cache: ChunkCache) -> None:
        self._store = store
        self._cache = cache
        self._limiter = anyio.CapacityLimiter(_READER_THREADS)

    async def read(
        self, stream: Stream, position: int, filters: Filter | None, most: int
    ) -> tuple[list[StoredChunk], int]:
        """At most `most` durable chunks from `position`, and the position to read on from."""
        position = max(position, stream.first_offset)
        # What becomes durable while a thread reads belongs to the next read: a position must never
        # pass a chunk that this read could not see.
        end = stream.end
        if position > stream.durable.user_chunk_id:
            return [], end
        chunks, after = self._read_cached(stream, position, filters, most)
        if after > position:
            return chunks, after
        found, after = await self._in_thread(
            lambda: self._store.read(stream.key, position, end, filters, READ_BYTES)
        )
        if len(found) > most:
            return found[:most], found[most].chunk_id
        return found, after

    def _read_cached(
        self, stream: Stream, position: int, filters: Filter | None, most: int
    ) -> tuple[list[StoredChunk], int]:
        chunks: list[StoredChunk] = []
        room = READ_BYTES
        while room > 0 and len(chunks) < most:
            chunk = self._cache.get(stream.key, position)
            if chunk is None:
                break
            position = chunk.next_offset
            if filters is None or filters.matches(chunk.filters):
                chunks.append(chunk)
                room -= len(chunk.blob)
        return chunks, position

    async def locate(self, stream: Stream, spec: OffsetSpec) -> int:
        """The current position of an offset specification; the end if no chunk matches."""
        kind = spec.kind
        if kind is OffsetKind.OFFSET and stream.first_offset < spec.value < stream.end:
            found = await self._in_thread(lambda: self._store.locate(stream.key, spec.value))
        elif kind is OffsetKind.TIMESTAMP:
            found = await self._in_thread(lambda: self._store.locate_time(stream.key, spec.value))
        elif kind is OffsetKind.LAST and stream.durable.user_chunk_id >= 0:
            found = stream.durable.user_chunk_id
        elif kind is OffsetKind.FIRST or (kind is OffsetKind.OFFSET and spec.value < stream.end):
            found = stream.first_offset
        else:
            found = None
        # Retention removes chunks from the store some time after it has moved the first offset.
        return stream.end if found is None else max(found, stream.first_offset)

    async def bytes_used(self) -> int:
        """How many bytes the store takes."""
        return await self._in_thread(self._store.bytes_used)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        if self._store.blocking:
            return await anyio.to_thread.run_sync(function, limiter=self._limiter)
        return function()
