"""When the safety valve of a dead-letter policy trips."""

from __future__ import annotations

from flowstream.connectors.valve import BLOCK, SafetyValve


def test_the_valve_trips_at_more_than_the_ratio_of_a_block():
    valve = SafetyValve(0.5, None)
    limit = BLOCK // 2
    assert [valve.failed("s", n * 2) for n in range(limit)] == [None] * limit
    assert "max_ratio" in str(valve.failed("s", 1))
    assert valve.failed("s", BLOCK) is None
    assert valve.failed("other", 1) is None


def test_the_valve_trips_at_failures_in_a_row_in_whatever_order_they_come():
    valve = SafetyValve(None, 3)
    assert [valve.failed("s", n) for n in (7, 5, 9)] == [None] * 3
    assert valve.failed("s", 6) is None
    assert "5 messages in a row" in str(valve.failed("s", 8))


def test_a_valve_that_is_off_never_trips():
    valve = SafetyValve(None, None)
    assert all(valve.failed("s", n) is None for n in range(2000))
