"""Slices are fair, bounded, and as large as fast handlers allow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.slice_sizer import CAREFUL, SLOW, TARGET, SliceSizer


@given(st.integers(1, 5000), st.integers(1, 16), st.integers(1, 1000))
def test_a_burst_is_shared_out_evenly_and_within_demand(waiting, workers, max_demand):
    sizer = SliceSizer(max_demand)
    for _ in range(20):
        sizer.learn(1000, 1e-6)
    left, slices = waiting, []
    for idle in range(workers, 0, -1):
        size = sizer.size(left, idle)
        slices.append(size)
        left -= size
    assert all(size <= max_demand for size in slices)
    if max_demand >= waiting:
        assert left == 0
        assert max(slices) - min(slices) <= 1


def test_slow_handlers_get_single_messages_and_fast_ones_large_slices():
    sizer = SliceSizer(1000)
    for _ in range(10):
        sizer.learn(16, 1.0)
    assert sizer.size(1000, 1) == 1
    for _ in range(10):
        sizer.learn(1, TARGET / 2000)
    assert sizer.size(5000, 1) == 1000


def test_light_load_is_handed_on_at_once():
    assert SliceSizer(1000).size(1, 8) == 1
    assert SliceSizer(1000).size(0, 8) == 0


def test_slices_are_shared_until_a_handler_is_known_to_be_fast_and_after_a_slow_one():
    sizer = SliceSizer(1000)
    assert sizer.whole == 0
    sizer.learn(10, TARGET / 100)
    assert sizer.whole == 64
    sizer.learn(10, 2 * SLOW)
    for _ in range(CAREFUL):
        assert sizer.whole == 0
        sizer.learn(10, TARGET / 100)
    assert sizer.whole > 0


def test_a_handler_of_slices_gets_its_fair_share_whatever_a_call_takes():
    sizer = SliceSizer(1000, together=True)
    for _ in range(10):
        assert sizer.size(2000, 4) == 500
        assert sizer.size(5000, 1) == 1000
        sizer.learn(500, 2 * TARGET)
    assert sizer.whole == 1000
    sizer.learn(500, 2 * SLOW)
    assert sizer.whole == 0


def test_the_handlers_of_a_slice_take_as_long_as_the_call_before_them():
    """So that call takes half of the time at most, and no slice becomes long without need."""
    sizer = SliceSizer(1000)
    for _ in range(30):
        size = sizer.size(1000, 1)
        sizer.learn(size, size * TARGET, before=20 * TARGET)
    assert sizer.size(1000, 1) == 20
    for _ in range(30):
        size = sizer.size(1000, 1)
        sizer.learn(size, size * TARGET, before=TARGET / 10)
    assert sizer.size(1000, 1) == 1


def test_where_many_fail_what_would_be_put_back_is_not_taken() -> None:
    sizer = SliceSizer(1000)
    for _ in range(10):
        sizer.learn(1000, TARGET / 2)
    assert sizer.size(5000, 1) == 1000
    for _ in range(10):  # each tenth message fails, and those behind it wait
        sizer.learn(10, TARGET / 200, put_back=990)
    assert 10 <= sizer.size(5000, 1) <= 40
    for _ in range(10):  # a few of a slice are put back: it was not too large
        sizer.learn(sizer.size(5000, 1), TARGET / 200, put_back=5)
    assert sizer.size(5000, 1) == 1000
