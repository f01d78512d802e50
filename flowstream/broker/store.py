"""What the broker needs of a store, and the store in memory.

A store knows nothing of connections or credits: it applies groups of changes, finds chunks and
reads them. All methods are synchronous. A store that does I/O sets `blocking`, and is then called
in worker threads only: `commit` and `collect` in one thread at a time, `read`, `locate` and
`locate_time` in any. Tests compare the store on disk with the one in memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Protocol

from flowstream.broker.records import (
    AddChunk,
    AddStream,
    Change,
    DropStream,
    StoredChunk,
    Truncate,
)


class Store(Protocol):
    """Keeps chunks, stored offsets, publisher sequences and definitions."""

    blocking: bool

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply a group of changes. When this returns, they survive `kill -9` and a power cut."""

    def collect(self) -> bool:
        """Free some of the chunks that were deleted; True while there are more."""

    def read(
        self, stream: int, chunk_id: int, until: int, filters: Filter | None, max_bytes: int
    ) -> tuple[list[StoredChunk], int]:
        """The chunks from `chunk_id` up to but not including `until` that match `filters`.

        Stops after `max_bytes`, but reads one chunk at least. Returns them and the id to read on
        from.
        """

    def locate(self, stream: int, offset: int) -> int | None:
        """The id of the chunk that contains `offset`, or of the first one after it, or None."""

    def locate_time(self, stream: int, timestamp: int) -> int | None:
        """The id of the first chunk written at or after `timestamp` (ms), or None."""

    def bytes_used(self) -> int:
        """How many bytes it takes on disk, or in memory if it has no files."""

    def close(self) -> None:
        """Release files and memory; no other method may be called after this."""


class Filter:
    """Selects the chunks that a filtering consumer is sent: those with one of its values."""

    __slots__ = ("match_unfiltered", "values")

    def __init__(self, values: frozenset[str], match_unfiltered: bool) -> None:
        self.values: frozenset[str] = values | {""} if match_unfiltered else values
        self.match_unfiltered: bool = match_unfiltered

    def matches(self, filters: frozenset[str] | None) -> bool:
        if filters is None:  # "" is the value of messages without one
            return "" in self.values
        return not self.values.isdisjoint(filters)


class MemoryStore:
    """Keeps chunks in lists, for tests and brokers without data to keep. It never blocks."""

    blocking = False

    def __init__(self) -> None:
        self._chunks: dict[int, list[StoredChunk]] = {}
        self._bytes = 0

    def commit(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case AddChunk(stream, chunk):
                    self._chunks[stream].append(chunk)
                    self._bytes += len(chunk.blob)
                case AddStream(stream):
                    self._chunks[stream] = []
                case DropStream(stream):
                    self._forget(self._chunks.pop(stream))
                case Truncate(stream, before):
                    chunks = self._chunks[stream]
                    end = bisect_left(chunks, before, key=_chunk_id)
                    self._forget(chunks[:end])
                    del chunks[:end]
                case _:
                    pass  # offsets, sequences and definitions: `Stream` and `Catalog` have them

    def _forget(self, chunks: list[StoredChunk]) -> None:
        self._bytes -= sum(len(chunk.blob) for chunk in chunks)

    def collect(self) -> bool:
        return False

    def read(
        self, stream: int, chunk_id: int, until: int, filters: Filter | None, max_bytes: int
    ) -> tuple[list[StoredChunk], int]:
        chunks = self._chunks.get(stream, [])
        found: list[StoredChunk] = []
        for index in range(bisect_left(chunks, chunk_id, key=_chunk_id), len(chunks)):
            chunk = chunks[index]
            if chunk.chunk_id >= until or max_bytes <= 0:
                break
            chunk_id = chunk.next_offset
            if filters is None or filters.matches(chunk.filters):
                found.append(chunk)
                max_bytes -= len(chunk.blob)
        return found, chunk_id

    def locate(self, stream: int, offset: int) -> int | None:
        chunks = self._chunks.get(stream, [])
        index = bisect_right(chunks, offset, key=_chunk_id) - 1
        if index < 0 or chunks[index].next_offset <= offset:
            index += 1
        return chunks[index].chunk_id if index < len(chunks) else None

    def locate_time(self, stream: int, timestamp: int) -> int | None:
        chunks = self._chunks.get(stream, [])
        index = bisect_left(chunks, timestamp, key=_timestamp)
        return chunks[index].chunk_id if index < len(chunks) else None

    def bytes_used(self) -> int:
        return self._bytes

    def close(self) -> None:
        self._chunks.clear()


def _chunk_id(chunk: StoredChunk) -> int:
    return chunk.chunk_id


def _timestamp(chunk: StoredChunk) -> int:
    return chunk.timestamp
