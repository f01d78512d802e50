"""One stream as it lives in the broker: what is accepted, what is sealed, what is durable.

Accepted entries wait until the next commit group seals them into chunks; a sealed chunk can be read
once its group is durable. Everything here is synchronous and without I/O: the chunks themselves are
in the store. Sources: osiris_writer (deduplication, tracking) and osiris_log (segments).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from flowstream.broker.chunk_builder import Building, build, pick
from flowstream.broker.records import (
    AddChunk,
    Change,
    DropOffset,
    DropSequence,
    SaveOffset,
    SaveSegment,
    SaveSequence,
    Segment,
    StoredChunk,
    StreamRecord,
    Truncate,
)
from flowstream.broker.retention import kept, parse_age
from flowstream.protocol import HEADER_SIZE, Entries, build_chunk

MAX_SEGMENT_CHUNKS = 256_000
DEFAULT_SEGMENT_BYTES = 500_000_000
MAX_SEQUENCES = 255
"""So many publisher references outlive the end of a segment; the longest unused are forgotten."""
DEFAULT_FILTER_BYTES = 16
EPOCH = 1
TRACKING_BYTES = 20
"""About what a tracked value takes in RabbitMQ's segment files."""


class Tail(NamedTuple):
    """The end of a stream: the offset after the last chunk, its id, and that of the last one with
    messages (-1: there is none)."""

    end: int
    chunk_id: int
    user_chunk_id: int


class Stream:
    """A stream's definition, tail, tracked offsets, publisher sequences and segments.

    `next_offset` is where the next chunk starts; `sealed` the tail with all that is sealed,
    `durable` the one that consumers may see. `listeners` are called after more became durable.
    """

    __slots__ = (
        "_changes",
        "_new_offsets",
        "_new_sequences",
        "_waiting",
        "arguments",
        "deleted",
        "dirty",
        "durable",
        "filter_bytes",
        "key",
        "listeners",
        "max_age",
        "max_bytes",
        "name",
        "next_offset",
        "offsets",
        "sealed",
        "segment_bytes",
        "segments",
        "sequences",
    )

    def __init__(self, record: StreamRecord) -> None:
        arguments = record.arguments
        self.key = record.key
        self.name = record.name
        self.arguments = arguments
        self.max_bytes = int(arguments.get("max-length-bytes", 0)) or None
        self.max_age = parse_age(arguments["max-age"]) if "max-age" in arguments else None
        self.segment_bytes = int(
            arguments.get("stream-max-segment-size-bytes", DEFAULT_SEGMENT_BYTES)
        )
        self.filter_bytes = int(arguments.get("stream-filter-size-bytes", DEFAULT_FILTER_BYTES))
        self.segments = deque(record.segments)
        self.offsets = record.offsets
        self.sequences = record.sequences
        self.next_offset = self.segments[-1].next_offset if self.segments else 0
        self.durable = self.sealed = _tail_of(record, self.next_offset)
        self.listeners: set[Callable[[], None]] = set()
        self.dirty = False
        self.deleted = False
        self._waiting: list[Entries] = []
        self._changes: list[Change] = []
        self._new_offsets: set[str] = set()
        self._new_sequences: set[str] = set()

    @property
    def first_offset(self) -> int:
        return self.segments[0].first_offset if self.segments else self.durable.end

    @property
    def end(self) -> int:
        """The offset after the last durable message."""
        return self.durable.end

    # --- accepting --------------------------------------------------------------------------

    def append(self, entries: Entries, reference: str | None) -> None:
        """Accept the entries of a Publish frame; duplicates under `reference` are left out."""
        if reference is not None:
            entries = self._without_duplicates(entries, reference)
        if entries.ids:
            self._waiting.append(entries)
        self.dirty = True

    def _without_duplicates(self, entries: Entries, reference: str) -> Entries:
        ids = entries.ids
        highest = self.sequences.get(reference, -1)
        if not ids:
            return entries
        if not (ids[0] > highest and ids == list(range(ids[0], ids[0] + len(ids)))):
            fresh: list[int] = []
            for index, publishing_id in enumerate(ids):
                if publishing_id > highest:
                    fresh.append(index)
                    highest = publishing_id
            if not fresh:
                return Entries([], [], 0, [])
            if len(fresh) < len(ids):
                entries = pick(entries, fresh)
        # The dictionary keeps references in the order of their last use.
        self.sequences.pop(reference, None)
        self.sequences[reference] = entries.ids[-1]
        self._new_sequences.add(reference)
        return entries

    def store_offset(self, reference: str, offset: int) -> None:
        self.offsets[reference] = offset
        self._new_offsets.add(reference)
        self.dirty = True

    # --- sealing ----------------------------------------------------------------------------

    def seal(self, now: int) -> list[Change]:
        """Make chunks of what waits; `now` in ms. Gives all changes since the last time."""
        changes, self._changes = self._changes, []
        before = self.next_offset
        touched: dict[int, Segment] = {}
        if self._waiting or self._new_offsets:
            self._snapshot(now, changes, touched)
        for building in build(self._waiting):
            segment = self._segment_for(now, changes)
            chunk = self._finish(building, now)
            self._grow(segment, chunk.records, len(chunk.blob), chunk.timestamp, touched)
            self.sealed = Tail(self.next_offset, chunk.chunk_id, chunk.chunk_id)
            changes.append(AddChunk(self.key, chunk))
        if self._new_offsets and self.next_offset == before:
            self._track(self._segment_for(now, changes), len(self._new_offsets), now, touched)
        self._waiting.clear()
        changes += (
            SaveSegment(self.key, replace(segment))
            for segment in touched.values()
            if segment in self.segments
        )
        changes += self._tracking()
        self.dirty = False
        return changes

    def _tracking(self) -> Iterator[Change]:
        for reference in self._new_sequences & self.sequences.keys():
            yield SaveSequence(self.key, reference, self.sequences[reference])
        for reference in self._new_offsets & self.offsets.keys():
            yield SaveOffset(self.key, reference, self.offsets[reference])
        self._new_sequences.clear()
        self._new_offsets.clear()

    def _finish(self, building: Building, now: int) -> StoredChunk:
        # A clock that went back must not make the search by time miss chunks.
        timestamp = max(now, self.segments[-1].last_timestamp)
        blob = build_chunk(
            building.entries,
            offset=self.next_offset,
            timestamp=timestamp,
            epoch=EPOCH,
            records=building.records,
            bloom_size=self.filter_bytes if building.filtered else 0,
        )
        filters = frozenset(building.filters) if building.filtered else None
        return StoredChunk(self.next_offset, building.records, timestamp, filters, blob)

    def _grow(
        self, segment: Segment, records: int, size: int, timestamp: int, touched: dict[int, Segment]
    ) -> None:
        self.next_offset += records
        segment.next_offset = self.next_offset
        segment.bytes += size
        segment.chunks += 1
        segment.last_timestamp = timestamp
        touched[segment.first_offset] = segment

    def _track(self, segment: Segment, entries: int, now: int, touched: dict[int, Segment]) -> None:
        """RabbitMQ writes tracked values as a chunk of their own, which takes one offset.

        Consumers never see it, but the next message comes one later. Here nothing is written.
        """
        chunk_id = self.next_offset
        timestamp = max(now, segment.last_timestamp)
        self._grow(segment, 1, HEADER_SIZE + entries * TRACKING_BYTES, timestamp, touched)
        self.sealed = Tail(self.next_offset, chunk_id, self.sealed.user_chunk_id)

    # --- segments ---------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        last = self.segments[-1]
        return last.bytes >= self.segment_bytes or last.chunks >= MAX_SEGMENT_CHUNKS

    def _snapshot(self, now: int, changes: list[Change], touched: dict[int, Segment]) -> None:
        """A new segment begins with the tracked values, less those that are out of date."""
        if not self.segments or not self._full or not (self.offsets or self.sequences):
            return
        changes += self._forget_tracking()
        tracked = len(self.offsets) + len(self.sequences)
        self._track(self._segment_for(now, changes), tracked, now, touched)

    def _segment_for(self, now: int, changes: list[Change]) -> Segment:
        if self.segments and not self._full:
            return self.segments[-1]
        segment = Segment(self.next_offset, self.next_offset, 0, 0, self._last_timestamp(now))
        self.segments.append(segment)
        changes += self._retain(now)
        return segment

    def _last_timestamp(self, now: int) -> int:
        return max(now, self.segments[-1].last_timestamp) if self.segments else now

    def _retain(self, now: int) -> list[Change]:
        count = kept(self.segments, self.max_bytes, self.max_age, now)
        if count == len(self.segments):
            return []
        while len(self.segments) > count:
            self.segments.popleft()
        return [Truncate(self.key, self.segments[0].first_offset)]

    def evaluate_age(self, now: int) -> None:
        """Retention by age between appends; what it drops goes with the next group."""
        if self.max_age is not None and len(self.segments) > 1:
            changes = self._retain(now)
            self._changes += changes
            self.dirty = self.dirty or bool(changes)

    def _forget_tracking(self) -> list[Change]:
        """What the snapshot of tracking leaves out: offsets below the first, old references."""
        changes: list[Change] = []
        for reference in [name for name, at in self.offsets.items() if at < self.first_offset]:
            del self.offsets[reference]
            changes.append(DropOffset(self.key, reference))
        for reference in list(self.sequences)[: max(0, len(self.sequences) - MAX_SEQUENCES)]:
            del self.sequences[reference]
            changes.append(DropSequence(self.key, reference))
        return changes

    # --- durable ----------------------------------------------------------------------------

    def statistics(self) -> Mapping[str, int]:
        """As StreamStats answers them; -1 throughout for an empty stream."""
        tail = self.durable
        empty = tail.chunk_id < 0
        return {
            "committed_chunk_id": tail.chunk_id,
            "committed_offset": -1 if empty else tail.end - 1,
            "first_chunk_id": -1 if empty else self.first_offset,
            "last_chunk_id": tail.chunk_id,
        }


def _tail_of(record: StreamRecord, next_offset: int) -> Tail:
    """The tail of a stored stream: past its last chunk only tracking can have taken offsets."""
    tracked = next_offset > record.last_chunk_end
    return Tail(
        next_offset, next_offset - 1 if tracked else record.last_chunk_id, record.last_chunk_id
    )
