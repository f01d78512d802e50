"""From chunks to deliveries: which gaps are losses, which chunks wait, and a stream's identity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client.consuming.delivery import Arrivals, StreamIdentity, Verdict, removed
from flowstream.protocol import Chunk, OffsetSpec, build_chunk, simple_entry


def chunk(offset: int, timestamp: int, *bodies: bytes) -> Chunk:
    entries = [simple_entry(body) for body in bodies or (b"a", b"b", b"c")]
    return Chunk.parse(
        build_chunk(entries, records=len(entries), offset=offset, timestamp=timestamp)
    )


def after_reading(*chunks: Chunk) -> StreamIdentity:
    identity = StreamIdentity()
    for each in chunks:
        identity.read(each)
    return identity


def test_without_a_past_everything_is_right() -> None:
    identity = StreamIdentity()
    assert identity.start() is None
    assert identity.judge(chunk(0, 5)) is Verdict.UNKNOWN
    identity.read(chunk(10, 5))
    assert identity.start() == OffsetSpec.offset(10)
    identity.forget()
    assert identity.start() is None
    assert identity.judge(chunk(3, 99)) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        (chunk(10, 5), Verdict.SAME),
        (chunk(13, 6), Verdict.UNKNOWN),  # retention has deleted the one that was read
        (chunk(7, 4), Verdict.UNKNOWN),  # a replica that has not caught up
        (chunk(0, 5), Verdict.UNKNOWN),
        (chunk(0, 6), Verdict.OTHER),  # newer than all that was read, and yet before it
        (chunk(8, 5), Verdict.OTHER),  # chunks of one stream do not overlap
        (chunk(10, 6), Verdict.OTHER),
        (chunk(10, 5, b"x", b"y", b"z"), Verdict.OTHER),
        (chunk(10, 5, b"a", b"b"), Verdict.OTHER),
        (chunk(9, 4, b"a", b"b", b"c", b"d", b"e"), Verdict.OTHER),
    ],
)
def test_the_first_chunk_tells(first: Chunk, verdict: Verdict) -> None:
    assert after_reading(chunk(7, 4), chunk(10, 5)).judge(first) is verdict


def test_clocks_that_go_back_are_no_new_stream() -> None:
    """A new leader's clock can be behind the last one's."""
    assert after_reading(chunk(0, 90), chunk(3, 20)).judge(chunk(0, 90)) is Verdict.UNKNOWN
    assert after_reading(chunk(0, 90), chunk(3, 20)).judge(chunk(3, 20)) is Verdict.SAME


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.data())
def test_a_stream_is_never_taken_for_another_one(sizes: list[int], data: st.DataObject) -> None:
    """Whatever was read of it, from wherever, and whichever of its chunks comes first then."""
    chunks, offset = [], 0
    for number, size in enumerate(sizes):
        chunks.append(chunk(offset, 100 + number, *[b"x"] * size))
        offset += size
    start = data.draw(st.integers(0, len(chunks) - 1))
    end = data.draw(st.integers(start + 1, len(chunks)))
    first = data.draw(st.sampled_from(chunks))
    assert after_reading(*chunks[start:end]).judge(first) is not Verdict.OTHER


@pytest.mark.parametrize(
    ("expected", "arrived", "first", "lost"),
    [
        (5, 9, 0, 0),  # the broker's own records, or a filter
        (5, 9, 5, 0),
        (5, 9, 9, 4),
        (5, 9, 8, 3),  # the segment begins with a record of the broker's own
        (5, 9, 20, 4),  # more was removed since
        (0, 9, 9, 9),
        (5, 9, None, 0),
    ],
)
def test_only_what_retention_removed_of_a_gap_is_lost(
    expected: int, arrived: int, first: int | None, lost: int
) -> None:
    assert removed(expected, arrived, first) == lost


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=20), st.integers(0, 99))
def test_a_chunk_behind_a_gap_waits_for_its_explanation(
    steps: list[tuple[int, int]], first: int
) -> None:
    arrivals, offset = Arrivals(), 0
    arrivals.clear(0)
    gaps = 0
    for gap, records in steps:
        arrival = arrivals.add(chunk(offset + gap, 1, *[b"x"] * records), None)
        assert (arrival.gap is None) == (gap == 0)
        gaps += gap
        offset += gap + records
    lost = 0
    while len(arrivals):
        arrival_ = arrivals.take()
        if arrival_ is None:
            for each in arrivals.unexplained()[:1]:
                each.explain(first)
            continue
        lost += arrival_.lost
    assert lost <= gaps
    assert arrivals.bytes == 0
    if first == 0:
        assert lost == 0
