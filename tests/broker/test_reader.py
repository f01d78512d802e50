"""The cache holds the newest chunks and stays inside its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.reader import ChunkCache
from flowstream.broker.records import StoredChunk


@given(sizes=st.lists(st.integers(0, 40), max_size=30), most=st.integers(0, 100))
def test_the_newest_that_fit_are_there(sizes: list[int], most: int) -> None:
    cache = ChunkCache(most)
    chunks = [StoredChunk(at, 1, 0, None, b"x" * size) for at, size in enumerate(sizes)]
    for chunk in chunks:
        cache.add(at := chunk.chunk_id % 2, chunk)
        assert cache.bytes <= most
        assert cache.get(1 - at, chunk.chunk_id) is None
    held = [chunk for chunk in chunks if cache.get(chunk.chunk_id % 2, chunk.chunk_id) is chunk]
    assert sum(len(chunk.blob) for chunk in held) == cache.bytes
    assert held == chunks[len(chunks) - len(held) :]
