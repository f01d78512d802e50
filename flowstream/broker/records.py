"""What a store keeps, and the changes that it makes durable: plain values.

A store applies a group of changes in order, and either all of it or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is stored. `blob` is what Deliver carries: the 48-byte header and the data.

    `filters` are the filter values of its messages, with "" for messages without one; None if no
    message has a filter value.
    """

    chunk_id: int
    records: int
    timestamp: int
    filters: frozenset[str] | None
    blob: bytes

    @property
    def next_offset(self) -> int:
        return self.chunk_id + self.records


@dataclass(slots=True)
class Segment:
    """Consecutive chunks that retention removes together, as RabbitMQ removes segment files."""

    first_offset: int
    next_offset: int
    bytes: int
    chunks: int
    last_timestamp: int


@dataclass(slots=True)
class StreamRecord:
    """Everything about a stream but its chunks, as it is read when the broker starts."""

    key: int
    name: str
    arguments: dict[str, str]
    last_chunk_id: int = -1
    last_chunk_end: int = 0
    segments: list[Segment] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Contents:
    """What a store holds when it is opened.

    `super_streams` maps a name to its (partition, binding key) pairs in partition order.
    `next_key` is above every key that a stream has ever had: the chunks of a deleted stream, which
    are freed later, are never taken for those of a new one.
    """

    streams: list[StreamRecord]
    super_streams: dict[str, list[tuple[str, str]]]
    next_key: int


@dataclass(frozen=True, slots=True)
class AddStream:
    stream: int
    name: str
    arguments: dict[str, str]


@dataclass(frozen=True, slots=True)
class DropStream:
    stream: int


@dataclass(frozen=True, slots=True)
class AddChunk:
    stream: int
    chunk: StoredChunk


@dataclass(frozen=True, slots=True)
class SaveSegment:
    """`segment` as it is after this group."""

    stream: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class Truncate:
    """Delete every segment and chunk below `before`, the first offset of a segment."""

    stream: int
    before: int


@dataclass(frozen=True, slots=True)
class SaveOffset:
    stream: int
    reference: str
    offset: int


@dataclass(frozen=True, slots=True)
class DropOffset:
    stream: int
    reference: str


@dataclass(frozen=True, slots=True)
class SaveSequence:
    stream: int
    reference: str
    sequence: int


@dataclass(frozen=True, slots=True)
class DropSequence:
    stream: int
    reference: str


@dataclass(frozen=True, slots=True)
class AddSuperStream:
    name: str
    partitions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DropSuperStream:
    name: str


Change: TypeAlias = (
    AddStream
    | DropStream
    | AddChunk
    | SaveSegment
    | Truncate
    | SaveOffset
    | DropOffset
    | SaveSequence
    | DropSequence
    | AddSuperStream
    | DropSuperStream
)
