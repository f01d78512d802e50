"""One stream in memory: chunks, offsets, truncation, and the markers between messages.

Nothing here waits or looks at a clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowstream.client import AmqpMessage, Offset, offset_spec
from flowstream.connectors import encode_payload
from flowstream.testing.markers import Marker
from flowstream.texts import shown, text_of


@dataclass(frozen=True, slots=True)
class MemoryChunk:
    """Messages that are delivered together; `timestamp` is in milliseconds since 1970."""

    offset: int
    bodies: tuple[bytes, ...]
    timestamp: int

    @property
    def last(self) -> int:
        return self.offset + len(self.bodies) - 1


class MemoryStream:
    """A stream whose offsets count from 0.

    Each append makes chunks of at most `chunk_size` messages.
    """

    def __init__(self, *, chunk_size: int = 100) -> None:
        self.chunk_size = chunk_size
        self.next_offset: int = 0
        self._chunks: list[MemoryChunk] = []
        self._marks: deque[tuple[int, Marker]] = deque()

    # -- content

    @property
    def first_offset(self) -> int | None:
        """The first retained offset; None while the stream is empty."""
        return self._chunks[0].offset if self._chunks else None

    @property
    def last_chunk_id(self) -> int | None:
        return self._chunks[-1].offset if self._chunks else None

    @property
    def last_offset(self) -> int | None:
        return self._chunks[-1].last if self._chunks else None

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all retained messages, in order."""
        return [body for chunk in self._chunks for body in chunk.bodies]

    @property
    def markers(self) -> tuple[Marker, ...]:
        """The markers that no consumer has reached yet."""
        return tuple(marker for _, marker in self._marks)

    def __len__(self) -> int:
        return sum(len(chunk.bodies) for chunk in self._chunks)

    def __repr__(self) -> str:
        return f"<MemoryStream {self.first_offset} to {self.last_offset}>"

    # -- writing

    def append(self, items: Iterable[Any], *, timestamp: int) -> range:
        """Add messages (see `encoded`) and markers; returns the messages' offsets."""
        first = self.next_offset
        for run in _runs(items, self.chunk_size):
            if isinstance(run, Marker):
                self._marks.append((self.next_offset, run))
            else:
                self._chunks.append(MemoryChunk(self.next_offset, run, timestamp))
                self.next_offset += len(run)
        return range(first, self.next_offset)

    def truncate(self, before: int) -> None:
        """Remove whole chunks before the offset, as retention does; the last chunk always stays."""
        while len(self._chunks) > 1 and self._chunks[0].last < before:
            del self._chunks[0]

    # -- reading

    def locate(self, offset: Offset) -> int:
        """The offset at which a consumer begins, as on a broker.

        A number begins at itself, or at the first retained offset if it is lower; it may be past
        the end. "first", "last" and "next" begin at a whole chunk, and a point in time at the first
        chunk that was written then or later.
        """
        spec = offset_spec(offset)
        kind, first = spec.kind.name, self.first_offset
        if kind == "OFFSET":
            return max(spec.value, first or 0)
        if first is None or kind == "NEXT":
            return self.next_offset
        if kind == "FIRST":
            return first
        if kind == "LAST":
            return self._chunks[-1].offset
        late = (chunk.offset for chunk in self._chunks if chunk.timestamp >= spec.value)
        return next(late, self.next_offset)

    def chunk_at(self, offset: int) -> MemoryChunk | None:
        """The chunk that holds the offset; the first one if it was truncated; None past the end."""
        if offset >= self.next_offset:
            return None
        index = bisect_right(self._chunks, offset, key=lambda chunk: chunk.offset) - 1
        return self._chunks[max(index, 0)]

    def chunks_behind(self, offset: int) -> Iterator[MemoryChunk]:
        """The chunks that have messages after the offset."""
        begin = bisect_right(self._chunks, offset, key=lambda chunk: chunk.last)
        return iter(self._chunks[begin:])

    def take_marker(self, offset: int) -> Marker | None:
        """Remove and return the first marker before the message at `offset`, if there is one."""
        if self._marks and self._marks[0][0] <= offset:
            return self._marks.popleft()[1]
        return None

    def forget_markers(self, before: int) -> None:
        """Remove the markers before the offset, where the consumer begins."""
        while self._marks and self._marks[0][0] < before:
            self._marks.popleft()


def encoded(item: Any) -> bytes:
    """The body of an item: bytes and AMQP messages as they are, str as UTF-8, the rest as JSON.

    Raises ValueError for what is neither.
    """
    if isinstance(item, AmqpMessage):
        return item.raw
    try:
        return encode_payload(item)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"message {shown(item)}: expected bytes, a string, an AmqpMessage, a marker such as "
            f"Crash(), or a value that JSON can hold: {text_of(error)}"
        ) from error


def milliseconds(time: datetime | int) -> int:
    """A time as chunks have it: milliseconds since 1970."""
    return time if isinstance(time, int) else int(time.timestamp() * 1000)


def _runs(items: Iterable[Any], size: int) -> Iterator[Marker | tuple[bytes, ...]]:
    """The markers, and the bodies between them in tuples of at most `size`."""
    run: list[bytes] = []
    for item in items:
        if isinstance(item, Marker) or len(run) == size:
            if run:
                yield tuple(run)
            run = []
        if isinstance(item, Marker):
            yield item
        else:
            run.append(encoded(item))
    if run:
        yield tuple(run)
