"""A rate holds over any time, and loses nothing to sleeping too long."""

from __future__ import annotations

from collections import defaultdict

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline import (
    Intake,
    Message,
    Pipeline,
    Producer,
    RateLimit,
)
from flowstream.pipeline.deciders.rate_limit import RateLimiter
from tests.support.pipelines import numbers


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


pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_one_rate_limit_is_shared_by_all_lanes() -> None:
    class Three(Producer):
        async def run(self, intake: Intake) -> None:
            async def send(name: str) -> None:
                partition = intake.open(name, commits=False)
                for _ in range(100):
                    await partition.send(numbers(50))

            async with anyio.create_task_group() as group:
                for name in "abc":
                    group.start_soon(send, name)

    received: dict[str, int] = defaultdict(int)
    pipeline = Pipeline("test", Three(), rate_limit=RateLimit(messages=300))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        received[message.stream] += 1

    async with pipeline.start() as running:
        await anyio.sleep(10)
        assert running.statistics().received == pytest.approx(3000, rel=0.02)
        assert min(received.values()) > 500, "no partition is left out"
        running.abort()
