"""Ranges of done offsets are a set of offsets, and the fewest ranges that hold it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.connectors.done_ranges import DoneRanges, Range, ranges_of

OFFSETS = st.lists(st.integers(0, 60))
RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda it: (it[0], it[0] + it[1]))
)


def offsets_in(ranges: list[Range]) -> set[int]:
    return {offset for first, last in ranges for offset in range(first, last + 1)}


def apart(ranges: list[Range]) -> bool:
    """Sorted, and with at least one offset in between, so that no fewer would do."""
    return all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(OFFSETS)
def test_ranges_hold_the_offsets_and_no_other(offsets: list[int]) -> None:
    ranges = ranges_of(offsets)
    assert offsets_in(ranges) == set(offsets)
    assert apart(ranges)


@given(RANGES, st.integers(-1, 70))
def test_done_ranges_equal_a_set(ranges: list[Range], below: int) -> None:
    done, model = DoneRanges(), set[int]()
    for each in ranges:
        done.add([each])
        model |= offsets_in([each])
        assert offsets_in(list(done)) == model
        assert apart(list(done))
    assert done == DoneRanges(ranges) == DoneRanges(reversed(ranges))
    done.close_gaps(range(below), below - 1)
    model |= set(range(below))
    assert offsets_in(list(done)) == model
    assert apart(list(done))
    assert len(done) == len(list(done))


@given(RANGES, OFFSETS)
def test_missing_are_the_indexes_of_what_is_not_done(
    ranges: list[Range], offsets: list[int]
) -> None:
    model = offsets_in(ranges)
    done = DoneRanges(ranges)
    assert done.missing(offsets) == [i for i, offset in enumerate(offsets) if offset not in model]
    assert [offset in done for offset in range(80)] == [offset in model for offset in range(80)]


@given(RANGES, st.integers(0, 40), st.integers(0, 40), st.integers(-1, 40))
def test_gaps_in_a_run_are_closed_up_to_the_last(
    ranges: list[Range], start: int, stop: int, last: int
) -> None:
    done = DoneRanges(ranges)
    assert done.last == max(offsets_in(ranges), default=-1)
    done.close_gaps(range(start, stop), last)
    assert offsets_in(list(done)) == offsets_in(ranges) | {*range(start, min(stop, last + 1))}


@given(OFFSETS, OFFSETS)
def test_any_order_of_batches_leads_to_the_same_ranges(a: list[int], b: list[int]) -> None:
    done, other = DoneRanges(ranges_of(a)), DoneRanges(ranges_of(b))
    done.add(ranges_of(b))
    other.add(ranges_of(a))
    assert done == other == DoneRanges(ranges_of(a + b))


@pytest.mark.parametrize("wrong", [(3, 2), (-1, 4)])
def test_what_is_no_range_is_refused(wrong: Range) -> None:
    with pytest.raises(ValueError, match="expected 0 <= first offset <= last offset"):
        DoneRanges([wrong])
