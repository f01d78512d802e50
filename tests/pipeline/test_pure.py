"""The small pure parts: window, rate limit, commit schedule, agenda, restarts, retries."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.errors import ConfigurationError
from flowstream.pipeline import Backoff, RateLimit, Retry
from flowstream.pipeline.deciders.commit_schedule import CommitSchedule
from flowstream.pipeline.deciders.rate_limit import RateLimiter
from flowstream.pipeline.deciders.restarts import Restarts
from flowstream.pipeline.deciders.timer_queue import TimerQueue
from flowstream.pipeline.deciders.window import Window, fitting

NO_NUMBERS: tuple[Any, ...] = (math.inf, -math.inf, math.nan, 10**400, True, "1")


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 100)
)
def test_the_window_is_never_exceeded_but_by_a_single_large_message(sizes, messages, room):
    window, start, inside = Window(messages, room), 0, []
    while start < len(sizes):
        space, space_bytes = window.room()
        take = fitting(sizes, start, space, space_bytes, first=not window.messages) if space else 0
        if take:
            window.admit(take, sum(sizes[start : start + take]))
            inside += sizes[start : start + take]
            start += take
            assert window.messages <= messages
            assert window.bytes <= room or window.messages == 1
        else:
            assert inside, "an empty window must admit something"
            window.release(1, inside.pop(0))
    assert window.messages == len(inside)
    assert window.bytes == sum(inside)


@given(
    st.floats(5, 100_000), st.floats(0.2, 5), st.none() | st.floats(10, 1e6),
    st.lists(st.floats(0.0005, 0.3), min_size=5, max_size=200),
)  # fmt: skip
def test_a_rate_holds_over_any_time_and_loses_nothing_to_oversleeping(rate, interval, size, pauses):
    limiter = RateLimiter(RateLimit(messages=rate * interval, interval=interval, bytes=size))
    now = taken = taken_bytes = 0.0
    for pause in pauses:
        room, room_bytes, wait = limiter.room(now)
        if room:
            take = min(room, max(room_bytes // 7, 1))
            limiter.take(now, take, 7 * take)
            taken += take
            taken_bytes += 7 * take
        else:
            assert wait > 0
        now += pause
        assert taken <= rate * (now + 0.1) + 1
        if size is not None:
            assert taken_bytes <= size / interval * (now + 0.1) + 7


@pytest.mark.medium
@pytest.mark.parametrize("rate", [50, 1000, 33_333, 400_000])
def test_a_busy_limiter_is_within_two_percent_over_ten_seconds(rate):
    limiter, now, taken = RateLimiter(RateLimit(messages=rate)), 0.0, 0
    while now < 10:
        room, _, wait = limiter.room(now)
        if room:
            take = min(room, 1000)
            limiter.take(now, take, 0)
            taken += take
        now += wait or 0.0001
    assert abs(taken / (rate * 10) - 1) < 0.02


def test_a_limit_of_zero_is_closed_and_changes_count_at_once():
    limiter = RateLimiter(RateLimit(messages=0))
    assert limiter.room(0) == (0, 0, float("inf"))
    limiter.limit = None
    assert limiter.room(0)[0] > 1e9
    limiter.limit = RateLimit(messages=1, interval=60)
    assert limiter.room(0)[0] == 1
    limiter.take(0, 1, 0)
    assert limiter.room(0)[2] == pytest.approx(60)


def test_commits_are_due_by_count_and_by_interval_and_only_when_something_settled():
    schedule = CommitSchedule(100, 5.0, now=0)
    assert not schedule.due(1000)
    assert not schedule.settled(99)
    assert not schedule.due(4.9)
    assert schedule.due(5.0)
    assert schedule.settled(1)
    assert schedule.due(0)
    schedule.committed(7.0)
    assert not schedule.due(100)
    schedule.settled(1)
    assert not schedule.due(11.9)
    assert schedule.due(12.0)


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


def test_restarts_are_bounded_within_a_window():
    restarts = Restarts(2, 5.0)
    assert [restarts.allow(now) for now in (0, 1, 2)] == [True, True, False]
    assert restarts.allow(6.5)
    assert restarts.total == 4


@given(st.integers(1, 200), st.floats(0, 0.999999))
def test_backoff_grows_to_its_maximum_within_its_jitter(attempt, chance):
    backoff = Backoff(initial=0.5, factor=2, maximum=10, jitter=0.3)
    base = min(10, 0.5 * 2 ** (attempt - 1))
    assert base * 0.7 - 1e-9 <= backoff.delay(attempt, chance) <= base * 1.3


def test_retry_counts_attempts_in_all():
    retry = Retry(attempts=3)
    assert [retry.delay(attempt) is None for attempt in (1, 2, 3)] == [False, False, True]
    assert Retry(attempts=1).delay(1) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(attempts=0),
        lambda: Retry(backoff=3),  # type: ignore[arg-type]
        lambda: Backoff(initial=-1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(jitter=2),
        lambda: RateLimit(),
        lambda: RateLimit(messages=-1),
        lambda: RateLimit(messages=1, interval=0),
        *(
            partial(make, **{name: value})
            for value in (*NO_NUMBERS, 1e-300)
            for make, name in (
                (RateLimit, "messages"),
                (RateLimit, "bytes"),
                (partial(RateLimit, 1), "interval"),
                (partial(Backoff, maximum=1e9), "factor"),
                (Retry, "attempts"),
            )
        ),
        *(
            partial(Backoff, **{name: value})
            for value in NO_NUMBERS
            for name in ("initial", "maximum", "factor", "jitter")
        ),
    ],
)
def test_values_that_cannot_work_are_refused(make):
    with pytest.raises(ConfigurationError):
        make()
