"""The newest chunks, kept in memory so that consumers at the tail need no disk."""

from __future__ import annotations

from flowstream.broker.records import StoredChunk


class ChunkCache:
    """Holds chunks up to `max_bytes` and forgets the ones added first."""

    __slots__ = ("_chunks", "bytes", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._chunks: dict[tuple[int, int], StoredChunk] = {}

    def add(self, stream: int, chunk: StoredChunk) -> None:
        self._chunks[stream, chunk.chunk_id] = chunk
        self.bytes += len(chunk.blob)
        while self.bytes > self.max_bytes:
            oldest = next(iter(self._chunks))
            self.bytes -= len(self._chunks.pop(oldest).blob)

    def get(self, stream: int, chunk_id: int) -> StoredChunk | None:
        return self._chunks.get((stream, chunk_id))
