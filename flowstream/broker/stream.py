"""One stream in the broker: what is accepted, what is sealed, what is durable.

A message passes three stages. `append` accepts it: it waits, in memory. `seal` puts what waits into
chunks and gives the changes of one commit group. Once that group is on the disk the committer
moves `durable` to `sealed`, and only then may consumers see the chunk.

Everything here is synchronous and does no I/O; the chunks themselves are in the store. Sources:
osiris_writer for deduplication and tracking, osiris_log for segments and retention.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from flowstream.broker.chunk_builder import fill_chunks
from flowstream.broker.records import (
    AddChunk,
    Change,
    DropOffset,
    DropSequence,
    SaveOffset,
    SaveSegment,
    SaveSequence,
    Segment,
    StreamRecord,
    Truncate,
)
from flowstream.protocol import HEADER_SIZE, Entries

MAX_SEGMENT_CHUNKS = 256_000
DEFAULT_SEGMENT_BYTES = 500_000_000
MAX_SEQUENCES = 255
"""How many publisher references a new segment takes over; those unused for longest are dropped."""
DEFAULT_FILTER_BYTES = 16
TRACKING_BYTES = 20
"""About what one tracked value takes in RabbitMQ's segment files."""
_AGE = re.compile(r"(\d+)([YMDhms])")
_AGE_SECONDS = {"Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3600, "m": 60, "s": 1}


class Tail(NamedTuple):
    """The end of a stream.

    `end` is the offset after the last chunk, `chunk_id` the id of that chunk, and `user_chunk_id`
    the id of the last chunk with messages; -1 where there is no such chunk.
    """

    end: int
    chunk_id: int
    user_chunk_id: int


class Stream:
    """A stream's definition, tail, stored offsets, publisher sequences and segments.

    `next_offset` is where the next chunk starts. `sealed` is the tail with everything that is
    sealed, `durable` the tail that consumers may see. `on_growth` holds functions that are called
    after more messages have become durable.
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
        "max_age",
        "max_bytes",
        "name",
        "next_offset",
        "offsets",
        "on_growth",
        "sealed",
        "segment_bytes",
        "segments",
        "sequences",
    )

    def __init__(self, record: StreamRecord) -> None:
        arguments = record.arguments
        self.key: int = record.key
        self.name: str = record.name
        self.arguments: dict[str, str] = arguments
        self.max_bytes: int | None = int(arguments.get("max-length-bytes", 0)) or None
        self.max_age: int | None = (
            parse_age(arguments["max-age"]) if "max-age" in arguments else None
        )
        self.segment_bytes: int = int(
            arguments.get("stream-max-segment-size-bytes", DEFAULT_SEGMENT_BYTES)
        )
        self.filter_bytes: int = int(
            arguments.get("stream-filter-size-bytes", DEFAULT_FILTER_BYTES)
        )
        self.segments: deque[Segment] = deque(record.segments)
        self.offsets: dict[str, int] = record.offsets
        self.sequences: dict[str, int] = record.sequences
        self.next_offset: int = self.segments[-1].next_offset if self.segments else 0
        self.durable: Tail = _tail_of(record, self.next_offset)
        self.sealed: Tail = self.durable
        self.on_growth: set[Callable[[], None]] = set()
        self.dirty: bool = False
        self.deleted: bool = False
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

    def statistics(self) -> Mapping[str, int]:
        """The values of StreamStats; all are -1 for an empty stream."""
        tail = self.durable
        empty = tail.chunk_id < 0
        return {
            "committed_chunk_id": tail.chunk_id,
            "committed_offset": -1 if empty else tail.end - 1,
            "first_chunk_id": -1 if empty else self.first_offset,
            "last_chunk_id": tail.chunk_id,
        }

    # --- accepting --------------------------------------------------------------------------

    def append(self, entries: Entries, reference: str | None) -> None:
        """Accept the entries of a Publish frame, without the duplicates under `reference`."""
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
        # Almost every frame has consecutive ids above the highest one: comparing two lists is much
        # faster than a loop over the ids.
        if not (ids[0] > highest and ids == list(range(ids[0], ids[0] + len(ids)))):
            fresh: list[int] = []
            for index, publishing_id in enumerate(ids):
                if publishing_id > highest:
                    fresh.append(index)
                    highest = publishing_id
            if len(fresh) < len(ids):
                entries = entries.select(fresh)
            if not fresh:
                return entries
        # Removed and inserted again: the dictionary keeps references in the order of their last
        # use, and `_forget_tracking` drops the oldest.
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
        """Put what waits into chunks; returns all changes since the last call. `now` is in ms."""
        changes, self._changes = self._changes, []
        before = self.next_offset
        touched: dict[int, Segment] = {}
        if self._waiting or self._new_offsets:
            self._snapshot(now, changes, touched)
        for builder in fill_chunks(self._waiting):
            segment = self._segment_for(now, changes)
            chunk = builder.build(self.next_offset, self._timestamp(now), self.filter_bytes)
            self._grow(segment, chunk.records, len(chunk.blob), chunk.timestamp, touched)
            self.sealed = Tail(self.next_offset, chunk.chunk_id, chunk.chunk_id)
            changes.append(AddChunk(self.key, chunk))
        if self._new_offsets and self.next_offset == before:
            self._track(self._segment_for(now, changes), len(self._new_offsets), now, touched)
        self._waiting.clear()
        # Copies, because a change is a value and the segment goes on growing. A segment that
        # retention has just removed is left out: saved after its Truncate it would be back.
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

    def _timestamp(self, now: int) -> int:
        """`now`, but never less than the last one: the search by time needs rising timestamps."""
        return max(now, self.segments[-1].last_timestamp) if self.segments else now

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
        """Take the offset that RabbitMQ's tracking chunk takes; here no such chunk is written.

        RabbitMQ writes stored offsets and sequences as a chunk of their own. Consumers never see
        it, but the offset of the next message is one higher, and clients must cope with that here
        as they must there.
        """
        chunk_id = self.next_offset
        size = HEADER_SIZE + entries * TRACKING_BYTES
        self._grow(segment, 1, size, self._timestamp(now), touched)
        self.sealed = Tail(self.next_offset, chunk_id, self.sealed.user_chunk_id)

    # --- segments ---------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        last = self.segments[-1]
        return last.bytes >= self.segment_bytes or last.chunks >= MAX_SEGMENT_CHUNKS

    def _snapshot(self, now: int, changes: list[Change], touched: dict[int, Segment]) -> None:
        """Start a new segment with the tracked values, as RabbitMQ does when the last is full."""
        if not self.segments or not self._full or not (self.offsets or self.sequences):
            return
        changes += self._forget_tracking()
        tracked = len(self.offsets) + len(self.sequences)
        self._track(self._segment_for(now, changes), tracked, now, touched)

    def _segment_for(self, now: int, changes: list[Change]) -> Segment:
        if self.segments and not self._full:
            return self.segments[-1]
        segment = Segment(self.next_offset, self.next_offset, 0, 0, self._timestamp(now))
        self.segments.append(segment)
        changes += self._retain(now)
        return segment

    def _retain(self, now: int) -> list[Change]:
        count = segments_to_keep(self.segments, self.max_bytes, self.max_age, now)
        if count == len(self.segments):
            return []
        while len(self.segments) > count:
            self.segments.popleft()
        return [Truncate(self.key, self.segments[0].first_offset)]

    def evaluate_age(self, now: int) -> None:
        """Apply retention by age between appends; the changes go into the next commit group."""
        if self.max_age is not None and len(self.segments) > 1:
            changes = self._retain(now)
            self._changes += changes
            self.dirty = self.dirty or bool(changes)

    def _forget_tracking(self) -> list[Change]:
        """Drop offsets below the first retained one, and the references unused for longest."""
        changes: list[Change] = []
        for reference in [name for name, at in self.offsets.items() if at < self.first_offset]:
            del self.offsets[reference]
            changes.append(DropOffset(self.key, reference))
        for reference in list(self.sequences)[: max(0, len(self.sequences) - MAX_SEQUENCES)]:
            del self.sequences[reference]
            changes.append(DropSequence(self.key, reference))
        return changes


def _tail_of(record: StreamRecord, next_offset: int) -> Tail:
    """The tail of a stored stream: after its last chunk only tracking can have taken offsets."""
    tracked = next_offset > record.last_chunk_end
    return Tail(
        next_offset, next_offset - 1 if tracked else record.last_chunk_id, record.last_chunk_id
    )


# --- retention --------------------------------------------------------------------------------


def parse_age(text: str) -> int:
    """A `max-age` such as "7D" in milliseconds. Raises ValueError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"max-age {text!r}: an age is a whole number and one of Y, M, D, h, m, s, such as 7D"
        )
    return int(match[1]) * _AGE_SECONDS[match[2]] * 1000


def segments_to_keep(
    segments: Sequence[Segment], max_bytes: int | None, max_age: int | None, now: int
) -> int:
    """How many of the newest segments stay, at least one. `max_age` and `now` are in ms."""
    count = len(segments)
    if max_bytes is not None:
        count = 1
        room = max_bytes - segments[-1].bytes
        for segment in list(segments)[-2::-1]:
            if segment.bytes > room:
                break
            room -= segment.bytes
            count += 1
    if max_age is not None:
        while count > 1 and segments[-count].last_timestamp < now - max_age:
            count -= 1
    return count
