"""A stream's tail: offsets, deduplication, chunks, retention, against naive models."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.chunk_builder import MAX_CHUNK_ENTRIES
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
from flowstream.broker.stream import MAX_SEQUENCES, Stream, Tail, parse_age
from flowstream.protocol import Chunk, Entries, SubEntry, simple_entry, sub_entry
from flowstream.protocol.publish import sub_entry_bytes


def entries_of(ids: list[int], filters: list[str | None] | None = None) -> Entries:
    return Entries(ids, [simple_entry(b"%d" % each) for each in ids], len(ids), [], filters)


def stream(**arguments: str) -> Stream:
    names = {name.replace("_", "-"): value for name, value in arguments.items()}
    return Stream(StreamRecord(1, "s", names))


def chunks_in(changes: list[Change]) -> list[StoredChunk]:
    return [change.chunk for change in changes if isinstance(change, AddChunk)]


def bodies_in(chunks: list[StoredChunk]) -> list[bytes]:
    return list(itertools.chain.from_iterable(Chunk(chunk.blob).bodies() for chunk in chunks))


@given(groups=st.lists(st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=4), max_size=5))
def test_every_accepted_message_has_the_next_offset(groups: list[list[list[int]]]) -> None:
    tested = stream()
    sent: list[bytes] = []
    chunks: list[StoredChunk] = []
    for group in groups:
        for ids in group:
            tested.append(entries_of(ids), None)
            sent += (b"%d" % each for each in ids)
        chunks += chunks_in(tested.seal(7))
    assert bodies_in(chunks) == sent
    offset = 0
    for chunk in chunks:
        header = Chunk(chunk.blob)
        header.verify()
        assert (chunk.chunk_id, header.offset, header.timestamp) == (offset, offset, 7)
        offset += chunk.records
    assert tested.next_offset == offset


@given(
    publishes=st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.lists(st.integers(0, 40), max_size=8))
    )
)
def test_deduplication_keeps_what_is_above_the_highest(publishes: Any) -> None:
    tested = stream()
    highest: dict[str, int] = {}
    kept: list[bytes] = []
    for reference, ids in publishes:
        tested.append(entries_of(ids), reference)
        for each in ids:
            if each > highest.get(reference, -1):
                highest[reference] = each
                kept.append(b"%d" % each)
    changes = tested.seal(0)
    assert bodies_in(chunks_in(changes)) == kept
    saved = {it.reference: it.sequence for it in changes if isinstance(it, SaveSequence)}
    assert saved == tested.sequences == highest


def test_sub_entries_take_an_offset_for_each_of_their_messages() -> None:
    batch: SubEntry = sub_entry(5, [b"a", b"b", b"c"])
    raw = sub_entry_bytes(batch)
    tested = stream()
    tested.append(Entries([4, 5], [simple_entry(b"x"), raw], 4, [1]), "r")
    tested.append(Entries([5, 6], [raw, simple_entry(b"y")], 4, [0]), "r")
    (chunk,) = chunks_in(tested.seal(0))
    assert chunk.records == tested.next_offset == 5
    assert bodies_in([chunk]) == [b"x", b"a", b"b", b"c", b"y"]


def test_a_change_is_given_once() -> None:
    tested = stream()
    tested.append(entries_of([1]), "p")
    tested.store_offset("r", 3)
    first = tested.seal(9)
    assert [type(change) for change in first] == [AddChunk, SaveSegment, SaveSequence, SaveOffset]
    assert first[1] == SaveSegment(1, Segment(0, 1, 48 + 5, 1, 9))
    assert not tested.dirty
    assert tested.seal(9) == []


def test_time_does_not_go_back() -> None:
    tested = stream()
    for now in (50, 40, 60):
        tested.append(entries_of([1]), None)
        tested.seal(now)
    assert [segment.last_timestamp for segment in tested.segments] == [60]


# --- retention --------------------------------------------------------------------------------


def naive_retention(sizes: list[int], most: int) -> int:
    """How many of the segments, newest last, RabbitMQ keeps: osiris_log:eval_max_bytes."""
    kept, room = 1, most - sizes[-1]
    for size in reversed(sizes[:-1]):
        if size > room:
            break
        room -= size
        kept += 1
    return kept


@given(count=st.integers(0, 40), segment=st.integers(1, 300), most=st.integers(1, 2000))
def test_retention_by_size_drops_whole_segments(count: int, segment: int, most: int) -> None:
    tested = stream(stream_max_segment_size_bytes=str(segment), max_length_bytes=str(most))
    for each in range(count):
        tested.append(entries_of([each]), None)
        before = [it.bytes for it in tested.segments]
        (truncated,) = [it for it in tested.seal(0) if isinstance(it, Truncate)] or (None,)
        rolled = bool(before) and before[-1] >= segment
        sizes = [*before, 0] if rolled else before
        kept = naive_retention(sizes, most) if rolled else len(before)
        assert (truncated is not None) == (rolled and kept < len(sizes)), (before, sizes)
        assert len(tested.segments) == max(kept, 1)
        if truncated is not None:
            assert truncated.before == tested.first_offset
    assert tested.next_offset == count


def test_retention_by_age() -> None:
    tested = stream(stream_max_segment_size_bytes="1", max_age="10s")
    for now in (0, 4_000, 8_000):
        tested.append(entries_of([1]), None)
        tested.seal(now)
    tested.evaluate_age(10_000)
    assert not tested.dirty
    tested.evaluate_age(14_001)
    assert tested.seal(14_001) == [Truncate(1, 2)]
    tested.evaluate_age(99_999)
    assert [segment.first_offset for segment in tested.segments] == [2]


def test_at_the_end_of_a_segment_old_tracking_is_forgotten() -> None:
    tested = stream(stream_max_segment_size_bytes="1", max_length_bytes="1")
    for each in range(3):
        tested.append(entries_of([each]), None)
        tested.seal(0)
    tested.store_offset("old", 0)
    for each in range(MAX_SEQUENCES + 2):
        tested.append(entries_of([each]), f"p{each}")
    changes = tested.seal(0)
    assert DropOffset(1, "old") in changes
    assert [it.reference for it in changes if isinstance(it, DropSequence)] == ["p0", "p1"]
    assert SaveOffset(1, "old", 0) not in changes


def test_only_segments_that_stay_are_saved() -> None:
    tested = stream(stream_max_segment_size_bytes="1", max_length_bytes="1")
    for each in range(5):
        tested.append(entries_of(list(range(each, each + MAX_CHUNK_ENTRIES))), None)
    changes = tested.seal(0)
    saved = [it.segment.first_offset for it in changes if isinstance(it, SaveSegment)]
    assert saved == [segment.first_offset for segment in tested.segments]


def test_a_stored_offset_takes_an_offset_unless_messages_come_with_it() -> None:
    tested = stream()
    tested.append(entries_of([1]), None)
    tested.store_offset("r", 0)
    tested.seal(0)
    assert tested.sealed == Tail(1, 0, 0)
    tested.store_offset("r", 1)
    changes = tested.seal(0)
    assert tested.sealed == Tail(2, 1, 0)
    assert [type(it) for it in changes] == [SaveSegment, SaveOffset]
    tested.append(entries_of([1, 2]), None)
    (chunk,) = chunks_in(tested.seal(0))
    assert (chunk.chunk_id, tested.sealed) == (2, Tail(4, 2, 2))


def test_a_segment_begins_with_what_is_tracked() -> None:
    tested = stream(stream_max_segment_size_bytes="1")
    tested.append(entries_of([1]), "p")
    tested.seal(0)
    tested.append(entries_of([2]), "p")
    (chunk,) = chunks_in(tested.seal(0))
    assert chunk.chunk_id == 2
    assert [segment.first_offset for segment in tested.segments] == [0, 1, 2]


@pytest.mark.parametrize(
    ("next_offset", "tail"), [(5, Tail(5, 3, 3)), (6, Tail(6, 5, 3)), (9, Tail(9, 8, 3))]
)
def test_the_tail_of_a_stored_stream(next_offset: int, tail: Tail) -> None:
    record = StreamRecord(1, "s", {}, 3, 5, [Segment(0, next_offset, 0, 0, 0)])
    assert Stream(record).durable == tail
    assert Stream(StreamRecord(1, "s", {})).durable == Tail(0, -1, -1)


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("2D", 172_800_000), ("30s", 30_000), ("1Y", 31_536_000_000)]
)
def test_parse_age(text: str, milliseconds: int) -> None:
    assert parse_age(text) == milliseconds


@pytest.mark.parametrize("text", ["", "1", "D", "1W", "-1D", "1Dx", "x"])
def test_invalid_ages_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="age"):
        parse_age(text)


def test_statistics() -> None:
    tested = stream()
    assert set(tested.statistics().values()) == {-1}
    tested.append(entries_of([1, 2]), None)
    tested.seal(0)
    assert set(tested.statistics().values()) == {-1}, "it is not durable yet"
    tested.durable = tested.sealed
    assert tested.statistics() == {
        "first_chunk_id": 0,
        "committed_chunk_id": 0,
        "last_chunk_id": 0,
        "committed_offset": 1,
    }
