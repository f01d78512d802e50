"""What a store keeps, as values, and the changes it is asked to make durable.

A group of changes is applied whole or not at all, in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk at rest. `blob` is what Deliver carries: the 48-byte header and the data.

    `filters` holds the filter values in it, "" standing for messages without one; None when no
    message has a value.
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
    """A run of chunks that retention removes as one, as RabbitMQ removes its segment files."""

    first_offset: int
    next_offset: int
    bytes: int
    chunks: int
    last_timestamp: int


@dataclass(slots=True)
class StreamRecord:
    """All that is known of a stream without reading its chunks."""

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
    """The segment as it is after this group."""

    stream: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class Truncate:
    """Forget every segment and chunk below `before`, which starts a segment."""

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
