"""Chunks that arrived and were not handed over yet, and the gaps before them. Pure.

A chunk behind a gap waits until somebody has found out whether retention made the gap: what is
handed over before that could be committed, and nobody would ever learn of the loss.
"""

from __future__ import annotations

from collections import deque

from flowstream.protocol import Chunk

from .retention import removed


class Arrival:
    """A chunk. `gap` is the offset that was expected instead, None where none was or where the gap
    is explained; `expected` and `lost` say what retention has removed before the chunk."""

    __slots__ = ("chunk", "committed_chunk_id", "expected", "gap", "lost")

    def __init__(self, chunk: Chunk, committed_chunk_id: int | None, gap: int | None) -> None:
        self.chunk = chunk
        self.committed_chunk_id = committed_chunk_id
        self.gap = gap
        self.expected = chunk.offset
        self.lost = 0

    def judge(self, first: int | None) -> None:
        """The first retained offset, looked up after the chunk arrived, explains its gap."""
        if self.gap is not None:
            self.expected = self.gap
            self.lost = removed(self.gap, self.chunk.offset, first)
            self.gap = None


class Arrivals:
    """The buffer. `next` is the offset expected to arrive next, None where any will do."""

    __slots__ = ("_queue", "bytes", "next")

    def __init__(self) -> None:
        self._queue: deque[Arrival] = deque()
        self.bytes = 0
        self.next: int | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, chunk: Chunk, committed_chunk_id: int | None) -> Arrival:
        expected = chunk.offset if self.next is None else self.next
        arrival = Arrival(chunk, committed_chunk_id, expected if chunk.offset > expected else None)
        self.next = max(expected, chunk.offset + chunk.records)
        self._queue.append(arrival)
        self.bytes += len(chunk.data)
        return arrival

    def take(self) -> Arrival | None:
        """The first chunk, unless it waits for an explanation of the gap before it."""
        if not self._queue or self._queue[0].gap is not None:
            return None
        arrival = self._queue.popleft()
        self.bytes -= len(arrival.chunk.data)
        return arrival

    def unexplained(self) -> list[Arrival]:
        return [arrival for arrival in self._queue if arrival.gap is not None]

    def clear(self, expected: int | None) -> None:
        """Forget everything; `expected` is what arrives next, if that is known."""
        self._queue.clear()
        self.bytes = 0
        self.next = expected
