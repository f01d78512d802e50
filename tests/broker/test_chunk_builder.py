"""Which entries go into one chunk, and what the chunk says of them."""

from __future__ import annotations

from flowstream.broker.chunk_builder import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_ENTRIES,
    ChunkBuilder,
    fill_chunks,
)
from flowstream.protocol import Chunk, Entries, simple_entry
from tests.broker.test_stream import entries_of


def records_of(*waiting: Entries) -> list[int]:
    return [builder.records for builder in fill_chunks(waiting)]


def built(*waiting: Entries) -> ChunkBuilder:
    (builder,) = fill_chunks(waiting)
    return builder


def test_nothing_waits() -> None:
    assert records_of() == []


def test_frames_share_a_chunk_up_to_its_entries() -> None:
    frames = [entries_of(list(range(start, start + 1000))) for start in range(0, 6000, 1000)]
    assert records_of(*frames) == [4000, 2000]


def test_a_frame_with_too_many_entries_is_split() -> None:
    records = records_of(entries_of([1]), entries_of(list(range(10_000))))
    assert records == [1, MAX_CHUNK_ENTRIES, MAX_CHUNK_ENTRIES, 1808]


def test_a_large_entry_is_a_chunk_of_its_own() -> None:
    large = Entries([1], [simple_entry(b"x" * MAX_CHUNK_BYTES)], 1, [])
    assert records_of(large, large) == [1, 1]


def test_a_chunk_without_filter_values() -> None:
    plain = built(entries_of([1, 2], [None, None])).build(7, 99, 20)
    assert (plain.chunk_id, plain.records, plain.timestamp, plain.filters) == (7, 2, 99, None)
    header = Chunk(plain.blob)
    header.verify()
    assert (header.offset, header.timestamp, header.bloom_size) == (7, 99, 0)


def test_a_chunk_with_filter_values() -> None:
    filtered = built(entries_of([1, 2], ["a", None]), entries_of([3])).build(0, 0, 20)
    assert filtered.filters == frozenset({"a", ""})
    assert Chunk(filtered.blob).bloom_size == 20
