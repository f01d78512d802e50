"""From the entries of Publish frames to chunks: which entries go into one chunk together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flowstream.broker.records import StoredChunk
from flowstream.protocol import Entries, build_chunk

MAX_CHUNK_ENTRIES = 4096
MAX_CHUNK_BYTES = 1 << 20
EPOCH = 1
"""Counts the leaders that a stream has had; here there is never another one."""


@dataclass(slots=True)
class ChunkBuilder:
    """The entries of one chunk; `filters` are their filter values, "" for those without one."""

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

    def build(self, offset: int, timestamp: int, filter_bytes: int) -> StoredChunk:
        """The chunk that starts at `offset`."""
        blob = build_chunk(
            self.entries,
            offset=offset,
            timestamp=timestamp,
            epoch=EPOCH,
            records=self.records,
            bloom_size=filter_bytes if self.filtered else 0,
        )
        filters = frozenset(self.filters) if self.filtered else None
        return StoredChunk(offset, self.records, timestamp, filters, blob)


def fill_chunks(waiting: Iterable[Entries]) -> Iterator[ChunkBuilder]:
    """The waiting entries as chunks, in order, each within the limits.

    The entries of one frame stay together unless there are more than `MAX_CHUNK_ENTRIES`; so a
    single frame may make a chunk that is larger than `MAX_CHUNK_BYTES`.
    """
    builder = ChunkBuilder()
    for entries in waiting:
        size = sum(map(len, entries.entries))
        if builder.entries and (
            len(builder.entries) + len(entries.ids) > MAX_CHUNK_ENTRIES
            or builder.bytes + size > MAX_CHUNK_BYTES
        ):
            yield builder
            builder = ChunkBuilder()
        if len(entries.ids) <= MAX_CHUNK_ENTRIES:
            builder.add(entries, size)
            continue
        every = range(len(entries.ids))
        for start in every[::MAX_CHUNK_ENTRIES]:
            builder.add(entries.select(every[start : start + MAX_CHUNK_ENTRIES]), size)
            yield builder
            builder = ChunkBuilder()
    if builder.entries:
        yield builder
