"""From a chunk to a delivery: chunks wait here in order, and are compared with what was expected.

`Arrivals` holds the chunks that have arrived, `make_delivery` trims, filters and checks one, and
`StreamIdentity` tells whether a stream is still the same one after a loss. All of it is pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from flowstream.protocol import Chunk, OffsetSpec

from .options import Match


class Delivery:
    """The messages of one chunk, in order.

    `bodies` are the raw bodies and `offsets` their offsets; `offset` is the first of them.
    `timestamp` is when the chunk was written, in milliseconds since 1970. `committed_chunk_id` is
    the broker's newest chunk at the time of sending (None before RabbitMQ 3.11). `bytes` is the
    size of the whole chunk. `lost` is how many offsets before these messages retention removed
    (on_truncated="skip").
    """

    __slots__ = (
        "bodies",
        "bytes",
        "chunk_id",
        "committed_chunk_id",
        "left",
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
        self.stream: str = stream
        self.lost: int = lost
        self.left: int = 0
        """How many messages are left to read, if they are read one by one; otherwise 0."""
        self.offset: int = offsets[0]
        self.offsets: Sequence[int] = offsets
        self.bodies: list[bytes] = bodies
        self.timestamp: int = chunk.timestamp
        self.chunk_id: int = chunk.offset
        self.committed_chunk_id: int | None = committed_chunk_id
        self.bytes: int = len(chunk.data)

    def __len__(self) -> int:
        return len(self.bodies)

    def shorten(self) -> None:
        """Leaves out the messages that were read one by one."""
        self.bodies, self.offsets = self.bodies[-self.left :], self.offsets[-self.left :]
        self.offset, self.left, self.lost = self.offsets[0], 0, 0

    def __repr__(self) -> str:
        return f"<delivery of {len(self.bodies)} messages of {self.stream!r} at {self.offset}>"


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message. `timestamp` is when its chunk was written, in milliseconds since 1970."""

    stream: str
    offset: int
    timestamp: int
    body: bytes


class Reader(Protocol):
    """A consumer, as `Messages` sees it."""

    @property
    def partly_read(self) -> Delivery | None:
        """The delivery of which some messages were read one by one, and others are left."""

    async def __anext__(self) -> Delivery:
        """The next delivery."""


class Messages:
    """Iterates over a consumer message by message instead of delivery by delivery.

    The consumer knows what is left of a delivery: another iteration begins there, and an offset
    that is stored is that of the last message that was read.
    """

    def __init__(self, consumer: Reader) -> None:
        self._consumer = consumer

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> StreamMessage:
        delivery = self._consumer.partly_read
        if delivery is None:
            delivery = await anext(self._consumer)
            delivery.left = len(delivery)
        number = len(delivery) - delivery.left
        delivery.left -= 1
        return StreamMessage(
            delivery.stream, delivery.offsets[number], delivery.timestamp, delivery.bodies[number]
        )


def make_delivery(
    stream: str,
    chunk: Chunk,
    start: int,
    committed_chunk_id: int | None,
    match: Match | None,
    *,
    lost: int = 0,
) -> Delivery | None:
    """The messages of a chunk from offset `start` on that match; None if there are none.

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


# --- waiting ------------------------------------------------------------------------------------


class Arrival:
    """A chunk that has arrived, and what is known about the offsets missing before it.

    `gap` is the offset that was expected instead of the chunk's, or None if there is no gap or it
    is explained. Then `lost` is how many offsets retention removed, from offset `expected` on.
    """

    __slots__ = ("chunk", "committed_chunk_id", "expected", "gap", "lost")

    def __init__(self, chunk: Chunk, committed_chunk_id: int | None, gap: int | None) -> None:
        self.chunk: Chunk = chunk
        self.committed_chunk_id: int | None = committed_chunk_id
        self.gap = gap
        self.expected: int = chunk.offset
        self.lost: int = 0

    def explain(self, first: int | None) -> None:
        """Explains the gap by the first retained offset, looked up after the chunk arrived."""
        if self.gap is not None:
            self.expected = self.gap
            self.lost = removed(self.gap, self.chunk.offset, first)
            self.gap = None


class Arrivals:
    """The chunks that have arrived and were not delivered yet.

    A chunk behind a gap waits until `Arrival.explain` was called. Its messages could be processed
    and their offset stored at once, and a loss before them would then never be reported: the next
    run would begin behind it.
    """

    __slots__ = ("_queue", "bytes", "next")

    def __init__(self) -> None:
        self._queue: deque[Arrival] = deque()
        self.bytes: int = 0
        self.next: int | None = None
        """The offset that is expected next; None if any offset is."""

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
        """The first chunk, unless the gap before it is not explained yet."""
        if not self._queue or self._queue[0].gap is not None:
            return None
        arrival = self._queue.popleft()
        self.bytes -= len(arrival.chunk.data)
        return arrival

    def put_back(self, arrival: Arrival) -> None:
        """Puts back what was taken last: its messages could not be delivered."""
        self._queue.appendleft(arrival)
        self.bytes += len(arrival.chunk.data)

    def unexplained(self) -> list[Arrival]:
        return [arrival for arrival in self._queue if arrival.gap is not None]

    def clear(self, expected: int | None) -> None:
        """Drops all chunks; `expected` is the offset that is expected next, if it is known."""
        self._queue.clear()
        self.bytes = 0
        self.next = expected


def removed(expected: int, arrived: int, first: int | None) -> int:
    """How many offsets of the gap from `expected` to `arrived` retention has removed.

    A gap has three possible causes: records of the broker's own take offsets, a filter left out
    chunks, or retention removed messages. Only retention moves `first`, the first retained offset.
    It must be looked up after the chunk arrived; None means that the stream is empty.
    """
    return 0 if first is None else max(0, min(first, arrived) - expected)


# --- identity -----------------------------------------------------------------------------------


class Verdict(Enum):
    """What the first chunk after a loss shows.

    SAME: it is the chunk that was read last. OTHER: it is from another stream. UNKNOWN: neither.
    """

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


class StreamIdentity:
    """Tells whether a stream is still the one that was read, or was deleted and created again.

    The protocol has no identity of a stream, and the offsets of a new one begin at 0 again. So this
    remembers the chunk that was read last. After a loss the consumer asks for that chunk again: if
    the same chunk comes, it is the same stream.
    """

    __slots__ = ("_crc", "_end", "_newest", "_offset", "_timestamp")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Accepts any stream, as before the first chunk."""
        self._offset = self._end = self._crc = self._timestamp = self._newest = 0

    def read(self, chunk: Chunk) -> None:
        """Remembers the chunk that was read last."""
        self._offset = chunk.offset
        self._end = chunk.offset + chunk.records
        self._crc = chunk.crc
        self._timestamp = chunk.timestamp
        self._newest = max(self._newest, chunk.timestamp)

    def start(self) -> OffsetSpec | None:
        """The offset of the chunk that was read last; None if none was read."""
        return OffsetSpec.offset(self._offset) if self._end else None

    def judge(self, first: Chunk) -> Verdict:
        """Compares the first chunk of a new subscription with the chunk that was read last.

        A later chunk is normal after retention. An earlier one may come from a replica that is
        behind; but if it is newer than everything that was read, it is from a new stream.
        """
        if not self._end or first.offset > self._offset:
            return Verdict.UNKNOWN
        if first.offset + first.records <= self._offset:
            return Verdict.OTHER if first.timestamp > self._newest else Verdict.UNKNOWN
        same = (self._offset, self._end, self._timestamp, self._crc) == (
            first.offset,
            first.offset + first.records,
            first.timestamp,
            first.crc,
        )
        return Verdict.SAME if same else Verdict.OTHER
