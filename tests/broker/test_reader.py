"""Chunks are found and read, from the cache and from the store, each once and in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.reader import ChunkCache, ChunkReader
from flowstream.broker.records import AddStream, StoredChunk, StreamRecord
from flowstream.broker.store import Filter, MemoryStore
from flowstream.broker.stream import Stream, Tail
from flowstream.protocol import OffsetSpec
from flowstream.testing import run_virtual
from tests.broker.test_stream import chunks_in, entries_of

pytestmark = pytest.mark.anyio


@given(sizes=st.lists(st.integers(0, 40), max_size=30), most=st.integers(0, 100))
def test_the_cache_holds_the_newest_chunks_that_fit(sizes: list[int], most: int) -> None:
    cache = ChunkCache(most)
    chunks = [StoredChunk(at, 1, 0, None, b"x" * size) for at, size in enumerate(sizes)]
    for chunk in chunks:
        cache.add(at := chunk.chunk_id % 2, chunk)
        assert cache.bytes <= most
        assert cache.get(1 - at, chunk.chunk_id) is None
    held = [chunk for chunk in chunks if cache.get(chunk.chunk_id % 2, chunk.chunk_id) is chunk]
    assert sum(len(chunk.blob) for chunk in held) == cache.bytes
    assert held == chunks[len(chunks) - len(held) :]


def a_stream(sizes: list[int]) -> tuple[Stream, MemoryStore, list[StoredChunk]]:
    """A stream whose chunks have so many messages, as written by commits ten milliseconds apart."""
    stream, store = Stream(StreamRecord(1, "s", {})), MemoryStore()
    store.commit([AddStream(1, "s", {})])
    chunks: list[StoredChunk] = []
    for number, size in enumerate(sizes):
        stream.append(entries_of(list(range(size)), ["a", *[None] * (size - 1)]), None)
        changes = stream.seal(10 * number)
        store.commit(changes)
        chunks += chunks_in(changes)
    stream.durable = stream.sealed
    return stream, store, chunks


@given(
    sizes=st.lists(st.integers(1, 4), max_size=12),
    cached=st.integers(0, 400),
    most=st.integers(1, 5),
    filters=st.sampled_from([None, Filter(frozenset({"a"}), False), Filter(frozenset(), False)]),
)
def test_reading_on_gives_every_chunk_once_with_any_cache(
    sizes: list[int], cached: int, most: int, filters: Filter | None
) -> None:
    stream, store, chunks = a_stream(sizes)
    cache = ChunkCache(cached)
    for chunk in chunks:
        cache.add(1, chunk)

    async def read_all() -> list[StoredChunk]:
        found: list[StoredChunk] = []
        position = 0
        while position < stream.end:
            some, position = await ChunkReader(store, cache).read(stream, position, filters, most)
            assert len(some) <= most
            found += some
        return found

    expected = [it for it in chunks if filters is None or filters.matches(it.filters)]
    assert run_virtual(read_all) == expected


async def test_what_is_not_durable_is_not_read() -> None:
    stream, store, chunks = a_stream([2, 3])
    stream.durable = Tail(2, 0, 0)
    assert await ChunkReader(store, ChunkCache(0)).read(stream, 0, None, 9) == (chunks[:1], 2)


@pytest.mark.parametrize(
    ("spec", "position"),
    [
        (OffsetSpec.first(), 0),
        (OffsetSpec.last(), 5),
        (OffsetSpec.next(), 9),
        (OffsetSpec.offset(0), 0),
        (OffsetSpec.offset(3), 2),
        (OffsetSpec.offset(8), 5),
        (OffsetSpec.offset(9), 9),
        (OffsetSpec.timestamp(0), 0),
        (OffsetSpec.timestamp(1), 2),
        (OffsetSpec.timestamp(20), 5),
        (OffsetSpec.timestamp(21), 9),
    ],
    ids=str,
)
async def test_where_a_consumer_begins(spec: OffsetSpec, position: int) -> None:
    stream, store, _ = a_stream([2, 3, 4])
    assert await ChunkReader(store, ChunkCache(0)).locate(stream, spec) == position


async def test_no_consumer_begins_below_the_first_offset() -> None:
    """Retention moves the first offset at once; the chunks below it are freed later."""
    stream, store, _ = a_stream([2, 3, 4])
    stream.segments[0].first_offset = 5
    reader = ChunkReader(store, ChunkCache(0))
    for spec in (OffsetSpec.first(), OffsetSpec.offset(1), OffsetSpec.timestamp(0)):
        assert await reader.locate(stream, spec) == 5
    (chunk,), after = await reader.read(stream, 0, None, 9)
    assert (chunk.chunk_id, after) == (5, 9)
