"""One stream as it lives in the broker: what is accepted, what is sealed, what is durable.

Accepted entries wait until the next commit group seals them into chunks; a sealed chunk can be read
once its group is durable. Everything here is synchronous and without I/O: the chunks themselves are
in the store. Sources: osiris_writer (deduplication, tracking) and osiris_log (segments, retention).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

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
from flowstream.protocol import Entries, build_chunk

MAX_CHUNK_ENTRIES = 4096
MAX_CHUNK_BYTES = 1 << 20
MAX_SEGMENT_CHUNKS = 256_000
DEFAULT_SEGMENT_BYTES = 500_000_000
MAX_SEQUENCES = 255
"""So many publisher references outlive the end of a segment; the longest unused are forgotten."""
DEFAULT_FILTER_BYTES = 16
EPOCH = 1

_AGE = re.compile(r"(\d+)([YMDhms])")
_AGE_SECONDS = {"Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3600, "m": 60, "s": 1}


def parse_age(text: str) -> int:
    """A `max-age` such as "7D" in milliseconds; ValueError for anything else."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an age such as 7D")
    return int(match[1]) * _AGE_SECONDS[match[2]] * 1000


@dataclass(slots=True)
class Building:
    """A chunk being put together at the tail."""

    entries: list[bytes] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    filters: set[str] = field(default_factory=set)
    filtered: bool = False

    def add(self, entries: Entries, size: int) -> None:
        self.entries += entries.entries
        self.records += entries.records
        self.bytes += size
        if entries.filters is None:
            self.filters.add("")
        else:
            self.filters.update(value or "" for value in entries.filters)
            self.filtered = self.filtered or any(entries.filters)


class Stream:
    """A stream's definition, tail, tracked offsets, publisher sequences and segments.

    `next_offset` is where the next sealed chunk starts, `end` the offset after the last durable
    message, `last_chunk_id` the last durable chunk (-1: none). `listeners` are called after more
    became durable.
    """

    __slots__ = (
        "_changes",
        "_new_offsets",
        "_new_sequences",
        "_waiting",
        "arguments",
        "deleted",
        "dirty",
        "end",
        "filter_bytes",
        "key",
        "last_chunk_id",
        "listeners",
        "max_age",
        "max_bytes",
        "name",
        "next_offset",
        "offsets",
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
        self.end = self.next_offset
        self.last_chunk_id = record.last_chunk_id
        self.listeners: set[Callable[[], None]] = set()
        self.dirty = False
        self.deleted = False
        self._waiting: list[Entries] = []
        self._changes: list[Change] = []
        self._new_offsets: set[str] = set()
        self._new_sequences: set[str] = set()

    @property
    def first_offset(self) -> int:
        return self.segments[0].first_offset if self.segments else self.end

    @property
    def empty(self) -> bool:
        return self.last_chunk_id < 0

    @property
    def bytes(self) -> int:
        return sum(segment.bytes for segment in self.segments)

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
        changes = self._changes
        self._changes = []
        touched: list[Segment] = []
        for building in self._build():
            chunk = self._finish(building, now)
            segment = self._segment_for(now, changes)
            segment.next_offset = self.next_offset = chunk.next_offset
            segment.bytes += len(chunk.blob)
            segment.chunks += 1
            segment.last_timestamp = chunk.timestamp
            changes.append(AddChunk(self.key, chunk))
            if not touched or touched[-1] is not segment:
                touched.append(segment)
        self._waiting.clear()
        changes += (SaveSegment(self.key, _copy(segment)) for segment in touched)
        changes += (
            SaveSequence(self.key, reference, self.sequences[reference])
            for reference in self._new_sequences
            if reference in self.sequences
        )
        changes += (
            SaveOffset(self.key, reference, self.offsets[reference])
            for reference in self._new_offsets
            if reference in self.offsets
        )
        self._new_sequences.clear()
        self._new_offsets.clear()
        self.dirty = False
        return changes

    def _build(self) -> Iterator[Building]:
        building = Building()
        for entries in self._waiting:
            size = sum(map(len, entries.entries))
            if building.entries and (
                len(building.entries) + len(entries.ids) > MAX_CHUNK_ENTRIES
                or building.bytes + size > MAX_CHUNK_BYTES
            ):
                yield building
                building = Building()
            if len(entries.ids) <= MAX_CHUNK_ENTRIES:
                building.add(entries, size)
                continue
            every = range(len(entries.ids))
            for start in every[::MAX_CHUNK_ENTRIES]:
                building.add(pick(entries, every[start : start + MAX_CHUNK_ENTRIES]), size)
                yield building
                building = Building()
        if building.entries:
            yield building

    def _finish(self, building: Building, now: int) -> StoredChunk:
        # A clock that went back must not make the search by time miss chunks.
        timestamp = max(now, self.segments[-1].last_timestamp) if self.segments else now
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

    # --- retention --------------------------------------------------------------------------

    def _segment_for(self, now: int, changes: list[Change]) -> Segment:
        last = self.segments[-1] if self.segments else None
        if (
            last is not None
            and last.bytes < self.segment_bytes
            and last.chunks < MAX_SEGMENT_CHUNKS
        ):
            return last
        segment = Segment(self.next_offset, self.next_offset, 0, 0, now)
        if last is not None:
            changes += self._forget_tracking()
        self.segments.append(segment)
        changes += self.retain(now)
        return segment

    def retain(self, now: int) -> list[Change]:
        """Drop whole segments that are too old or too much; the last one always stays."""
        keep = 1
        if self.max_bytes is None:
            keep = len(self.segments)
        else:
            room = self.max_bytes - self.segments[-1].bytes
            for segment in list(self.segments)[-2::-1]:
                if segment.bytes > room:
                    break
                room -= segment.bytes
                keep += 1
        if self.max_age is not None:
            while keep > 1 and self.segments[-keep].last_timestamp < now - self.max_age:
                keep -= 1
        if keep >= len(self.segments):
            return []
        while len(self.segments) > keep:
            self.segments.popleft()
        first = self.segments[0].first_offset
        return [Truncate(self.key, first)]

    def evaluate_age(self, now: int) -> None:
        """Retention by age between appends; what it drops goes with the next group."""
        if self.max_age is not None and len(self.segments) > 1:
            changes = self.retain(now)
            self._changes += changes
            self.dirty = self.dirty or bool(changes)

    def _forget_tracking(self) -> list[Change]:
        """At the end of a segment the server forgets what the snapshot of tracking leaves out."""
        changes: list[Change] = []
        for reference in [name for name, at in self.offsets.items() if at < self.first_offset]:
            del self.offsets[reference]
            changes.append(DropOffset(self.key, reference))
        for reference in list(self.sequences)[: max(0, len(self.sequences) - MAX_SEQUENCES)]:
            del self.sequences[reference]
            changes.append(DropSequence(self.key, reference))
        return changes

    # --- durable ----------------------------------------------------------------------------

    def committed(self, chunk: StoredChunk) -> None:
        self.last_chunk_id = chunk.chunk_id
        self.end = chunk.next_offset

    def statistics(self) -> Mapping[str, int]:
        """As StreamStats answers them; -1 throughout for an empty stream."""
        first = -1 if self.empty else self.first_offset
        last = self.last_chunk_id
        return {
            "first_chunk_id": first,
            "committed_chunk_id": last,
            "last_chunk_id": last,
            "committed_offset": -1 if self.empty else self.end - 1,
        }


def _copy(segment: Segment) -> Segment:
    return Segment(
        segment.first_offset,
        segment.next_offset,
        segment.bytes,
        segment.chunks,
        segment.last_timestamp,
    )


def records_in(entry: bytes) -> int:
    """How many messages an entry is: a sub-batch has its count in the two bytes after the first."""
    return int.from_bytes(entry[1:3]) if entry[0] & 0x80 else 1


def pick(entries: Entries, indices: Sequence[int]) -> Entries:
    """These of the entries, in the order of `indices`, which must not be empty."""
    take: Callable[..., Any] = itemgetter(*indices) if len(indices) > 1 else _one(indices[0])
    raw = list(take(entries.entries))
    batches = [at for at, entry in enumerate(raw) if entry[0] & 0x80] if entries.batches else []
    return Entries(
        list(take(entries.ids)),
        raw,
        sum(map(records_in, raw)) if batches else len(raw),
        batches,
        list(take(entries.filters)) if entries.filters is not None else None,
    )


def _one(index: int) -> Callable[[Sequence[Any]], tuple[Any]]:
    return lambda items: (items[index],)
