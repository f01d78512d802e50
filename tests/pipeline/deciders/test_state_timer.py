"""The seconds in each state add up to the time that has passed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.state_timer import StateTimer


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20))
def test_every_second_is_in_one_state(steps: list[tuple[str, int]]) -> None:
    timer, now, state = StateTimer("a", 0.0), 0.0, "a"
    expected = {"a": 0.0}
    for entered, pause in steps:
        now += pause
        expected[state] = expected.get(state, 0.0) + pause
        timer.enter(entered, now)
        state = entered
        assert sum(timer.until(now).values()) == now
    assert {k: v for k, v in timer.until(now).items() if v} == {
        k: v for k, v in expected.items() if v
    }
    assert timer.until(now + 5).get(state, 0.0) == expected.get(state, 0.0) + 5
