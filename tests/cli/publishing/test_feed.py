"""A pace sends what is due: never more, and in the long run no less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.publishing.feed import Rate


def test_messages_become_due_as_time_goes() -> None:
    pace = Rate(10, now=0.0)
    assert pace.due(0.0) == 0
    assert pace.due(0.35) == 3
    pace.sent(3)
    assert pace.due(0.41) == 1


def test_a_pause_is_caught_up_by_one_second_at_most() -> None:
    pace = Rate(100, now=0.0)
    assert pace.due(3600.0) == 101


def test_less_than_one_a_second_still_sends() -> None:
    pace = Rate(0.1, now=0.0)
    assert pace.due(9.0) == 0
    assert pace.wait() == pytest.approx(1.0)
    assert pace.due(10.5) == 1


@given(st.floats(0.5, 10_000), st.lists(st.floats(0.001, 0.5, allow_nan=False), min_size=1))
def test_the_rate_holds_over_any_steps(rate: float, steps: list[float]) -> None:
    pace, now, total = Rate(rate, now=0.0), 0.0, 0
    for step in steps:
        now += step
        due = pace.due(now)
        pace.sent(due)
        total += due
    assert total <= now * rate + 1e-6
    assert total >= now * rate - 1 - 1e-6
