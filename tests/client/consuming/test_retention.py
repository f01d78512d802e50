"""What of a gap is a loss, which chunks wait for the answer, and when a reader is warned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client.consuming.delivery import Arrivals, removed
from flowstream.client.consuming.retention import Distance, Headroom
from flowstream.protocol import Chunk, build_chunk, simple_entry


def chunk(offset: int, records: int) -> Chunk:
    entries = [simple_entry(b"x")] * records
    return Chunk.parse(build_chunk(entries, records=records, offset=offset, timestamp=1))


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
        arrival = arrivals.add(chunk(offset + gap, records), None)
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


def test_a_reader_is_warned_once_before_and_once_when_it_is_overtaken() -> None:
    headroom = Headroom()
    assert headroom.looked(0, 100, 5000) is None
    assert headroom.looked(500, 700, 6000) is Distance.CLOSE
    assert headroom.looked(500, 800, 6000) is None
    assert headroom.looked(1000, 850, 6000) is Distance.BEHIND
    assert headroom.looked(1000, 5000, 6000) is Distance.FAR
    assert headroom.looked(5900, 6100, 6100) is None  # nothing is behind it
