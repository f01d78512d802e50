"""What a consumer hands over: the messages of one chunk, trimmed, filtered and checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

from flowstream.protocol import Chunk, OffsetSpec

from .options import Match
from .retention import removed


class Verdict(Enum):
    """SAME: the chunk that was read last. OTHER: of another stream. FURTHER: read on as usual."""

    SAME = "same"
    OTHER = "other"
    FURTHER = "further"


class StreamIdentity:
    """What is remembered of the chunk that was read last."""

    __slots__ = ("_crc", "_end", "_newest", "_offset", "_timestamp")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing was read: whatever comes is right."""
        self._offset = self._end = self._crc = self._timestamp = self._newest = 0

    def read(self, chunk: Chunk) -> None:
        self._offset = chunk.offset
        self._end = chunk.offset + chunk.records
        self._crc = chunk.crc
        self._timestamp = chunk.timestamp
        self._newest = max(self._newest, chunk.timestamp)

    def start(self) -> OffsetSpec | None:
        """Where to ask a new subscription to begin; None: nothing was read."""
        return OffsetSpec.offset(self._offset) if self._end else None

    def judge(self, first: Chunk) -> Verdict:
        """What the first chunk of a new subscription says.

        One behind the last one follows retention. One before it is what a replica sends that has
        not caught up; newer than all that was read, it is from a new stream.
        """
        if not self._end or first.offset > self._offset:
            return Verdict.FURTHER
        if first.offset + first.records <= self._offset:
            return Verdict.OTHER if first.timestamp > self._newest else Verdict.FURTHER
        same = (self._offset, self._end, self._timestamp, self._crc) == (
            first.offset,
            first.offset + first.records,
            first.timestamp,
            first.crc,
        )
        return Verdict.SAME if same else Verdict.OTHER


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


class Delivery:
    """Messages of one chunk, in order.

    `bodies` are raw; `offset` is that of the first one, `offsets` those of all. `timestamp` is when
    the chunk was written, in milliseconds since 1970. `committed_chunk_id` is the broker's newest
    chunk at the time of sending (None before 3.11). `bytes` is the size of the whole chunk, `lost`
    how many offsets before these messages retention removed (on_truncated="skip").
    """

    __slots__ = (
        "bodies",
        "bytes",
        "chunk_id",
        "committed_chunk_id",
        "lost",
        "offset",
        "offsets",
        "stream",
        "timestamp",
    )

    def __init__(
        self,
        stream: str,
        offsets: Sequence[int],
        bodies: list[bytes],
        chunk: Chunk,
        committed_chunk_id: int | None,
        *,
        lost: int = 0,
    ) -> None:
        self.stream = stream
        self.lost = lost
        self.offset = offsets[0]
        self.offsets = offsets
        self.bodies = bodies
        self.timestamp = chunk.timestamp
        self.chunk_id = chunk.offset
        self.committed_chunk_id = committed_chunk_id
        self.bytes = len(chunk.data)

    def __len__(self) -> int:
        return len(self.bodies)

    def __repr__(self) -> str:
        return f"<delivery of {len(self.bodies)} messages of {self.stream!r} at {self.offset}>"


def make_delivery(
    stream: str,
    chunk: Chunk,
    start: int,
    committed_chunk_id: int | None,
    match: Match | None,
    *,
    lost: int = 0,
) -> Delivery | None:
    """The messages of a chunk from offset `start` on that match; None when there are none.

    Raises ChecksumMismatch or ProtocolError for a damaged chunk.
    """
    chunk.verify()
    bodies = chunk.bodies()
    first = chunk.offset
    if first < start:
        del bodies[: start - first]
        first = start
    offsets: Sequence[int] = range(first, first + len(bodies))
    if match is not None:
        kept = [(offset, body) for offset, body in zip(offsets, bodies, strict=True) if match(body)]
        offsets, bodies = [offset for offset, _ in kept], [body for _, body in kept]
    return (
        Delivery(stream, offsets, bodies, chunk, committed_chunk_id, lost=lost) if bodies else None
    )
