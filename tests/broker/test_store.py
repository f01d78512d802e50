"""The store in memory against naive models, and the store on disk against the one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowstream.broker.records import (
    AddChunk,
    AddStream,
    Change,
    DropStream,
    StoredChunk,
    Truncate,
)
from flowstream.broker.sqlite import SqliteStore
from flowstream.broker.store import Filter, MemoryStore, Store

VALUES = st.sampled_from(["", "a", "b", "c"])
FILTERS = st.none() | st.frozensets(VALUES, min_size=1, max_size=3)
SIZES = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 3), FILTERS, st.binary(max_size=60)), max_size=30
)


def chunks_of(sizes: list[tuple[int, int, frozenset[str] | None, bytes]]) -> list[StoredChunk]:
    """Chunks one after the other; the time goes on by the second number."""
    chunks: list[StoredChunk] = []
    offset, now = 0, 1000
    for records, pause, filters, body in sizes:
        now += pause
        chunks.append(StoredChunk(offset, records, now, filters, b"blob" + body))
        offset += records
    return chunks


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=SIZES,
    cut=st.integers(0, 30),
    probes=st.lists(st.integers(0, 160), max_size=8),
    wanted=st.none() | st.tuples(st.frozensets(VALUES, min_size=1), st.booleans()),
    room=st.integers(1, 200),
)
def test_both_stores_find_and_read_the_same(
    sizes: Any, cut: int, probes: list[int], wanted: Any, room: int
) -> None:
    chunks = chunks_of(sizes)
    changes: list[Change] = [AddStream(1, "one", {}), AddStream(2, "two", {})]
    changes += [AddChunk(1, chunk) for chunk in chunks]
    if cut < len(chunks):
        changes.append(Truncate(1, chunks[cut].chunk_id))
    filters = None if wanted is None else Filter(*wanted)
    with TemporaryDirectory() as folder, closing(SqliteStore(Path(folder) / "db")) as disk:
        memory = MemoryStore()
        for store in (memory, disk):
            store.commit(changes)
            while store.collect():
                pass
        for probe in probes:
            assert memory.locate(1, probe) == disk.locate(1, probe)
            assert memory.locate_time(1, 980 + probe) == disk.locate_time(1, 980 + probe)
            found = memory.read(1, probe, 150, filters, room)
            assert found == disk.read(1, probe, 150, filters, room)
        assert disk.locate(2, 0) is None
        assert disk.read(2, 0, 10, None, 10) == ([], 0)


@given(sizes=SIZES, offset=st.integers(0, 200))
def test_locate_gives_the_chunk_that_contains_the_offset(sizes: Any, offset: int) -> None:
    chunks = chunks_of(sizes)
    store = MemoryStore()
    store.commit([AddStream(1, "one", {}), *(AddChunk(1, chunk) for chunk in chunks)])
    naive = [chunk.chunk_id for chunk in chunks if offset < chunk.next_offset]
    assert store.locate(1, offset) == (naive[0] if naive else None)


def read_all(store: Store, filters: Filter | None, room: int) -> Iterator[StoredChunk]:
    position = 0
    while True:
        found, after = store.read(1, position, 10_000, filters, room)
        yield from found
        if after == position:
            return
        position = after


@given(sizes=SIZES, values=st.frozensets(VALUES, min_size=1), unfiltered=st.booleans())
def test_reading_piece_by_piece_misses_and_repeats_nothing(
    sizes: Any, values: frozenset[str], unfiltered: bool
) -> None:
    chunks = chunks_of(sizes)
    store = MemoryStore()
    store.commit([AddStream(1, "one", {}), *(AddChunk(1, chunk) for chunk in chunks)])
    filters = Filter(values, unfiltered)
    assert list(read_all(store, None, 50)) == chunks
    assert list(read_all(store, filters, 50)) == [
        chunk for chunk in chunks if filters.matches(chunk.filters)
    ]


def test_filters() -> None:
    chosen = Filter(frozenset({"a"}), match_unfiltered=False)
    assert chosen.matches(frozenset({"a", "b"}))
    assert not chosen.matches(frozenset({"", "b"}))
    assert not chosen.matches(None)
    both = Filter(frozenset({"a"}), match_unfiltered=True)
    assert both.matches(frozenset({"", "b"}))
    assert both.matches(None)
    assert not both.matches(frozenset({"b"}))


def test_bytes_used() -> None:
    store = MemoryStore()
    store.commit([AddStream(1, "one", {}), AddChunk(1, StoredChunk(0, 1, 0, None, b"12345"))])
    assert store.bytes_used() == 5
    store.commit([DropStream(1)])
    assert store.bytes_used() == 0
