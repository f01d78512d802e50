"""Callbacks are called in the order of their times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.timer_queue import TimerQueue


@given(st.lists(st.integers(0, 20), max_size=40))
def test_the_agenda_calls_in_order_of_time_and_entry(times):
    agenda, called = TimerQueue(), []
    for entry, when in enumerate(times):
        first = agenda.at(when, lambda e=entry: called.append(e))
        assert first == (when < min(times[:entry], default=99))
    for now in range(21):
        assert agenda.next is None or agenda.next >= now
        for callback in agenda.due(now):
            callback()
    assert called == sorted(range(len(times)), key=lambda e: (times[e], e))
    assert len(agenda) == 0
