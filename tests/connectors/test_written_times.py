"""Marks recognise the messages of a stream that was created again, and stay few."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from flowstream.connectors.written_times import MOST, WrittenTimes

BATCHES = st.lists(st.integers(1, 5), max_size=60)
SHUFFLED = st.randoms(use_true_random=False)


def write(times: WrittenTimes, sizes: list[int], start: int, chance: random.Random) -> list[int]:
    """Write batches in any order, with the watermark of such a run. The time of each offset."""
    begins = [sum(sizes[:at]) for at in range(len(sizes))]
    written_at = [start + offset // 3 for offset in range(sum(sizes))]
    order = [*range(len(sizes))]
    chance.shuffle(order)
    done = [False] * len(sizes)
    for at in order:
        watermark = begins[done.index(False)]
        last = begins[at] + sizes[at] - 1
        times.add(begins[at], last, written_at[last], range(watermark))
        done[at] = True
    return written_at


@given(BATCHES, SHUFFLED)
def test_a_message_that_comes_again_is_recognised(sizes: list[int], chance: random.Random) -> None:
    times = WrittenTimes()
    written_at = write(times, sizes, 1000, chance)
    assert not any(times.is_replaced(*each) for each in enumerate(written_at))
    assert len([*times]) <= MOST
    assert times.newest == max(written_at, default=0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3000))), SHUFFLED)
def test_times_that_go_back_are_not_another_stream(
    messages: list[tuple[int, int]], chance: random.Random
) -> None:
    """As after a clock was set; messages of several workers are in batches that overlap."""
    batches: dict[int, list[int]] = {}
    for offset, (number, _) in enumerate(messages):
        batches.setdefault(number, []).append(offset)
    times = WrittenTimes()
    written: set[int] = set()
    for batch in chance.sample([*batches.values()], len(batches)):
        written.update(batch)
        watermark = next(n for n in range(len(messages) + 1) if n not in written)
        newest = max(messages[offset][1] for offset in batch)
        times.add(batch[0], batch[-1], newest, range(watermark))
        assert not any(times.is_replaced(offset, messages[offset][1]) for offset in written)


@given(BATCHES.filter(bool), BATCHES, SHUFFLED)
def test_the_messages_of_another_stream_are_noticed(
    sizes: list[int], later: list[int], chance: random.Random
) -> None:
    """Also when messages behind the end of the old stream were written first."""
    times = WrittenTimes()
    old = write(times, sizes, 1000, chance)
    end = len(old)
    for size in later[: MOST // 2]:
        times.add(end, end + size - 1, 9000 + end + size)
        end += size
    assert all(times.is_replaced(offset, 8000) for offset in range(len(old)))


def test_the_marks_that_are_closest_in_time_are_merged() -> None:
    times = WrittenTimes([(9, 1000)])
    for number in range(2 * MOST):
        times.add(10 + number, 10 + number, 5000 + number)
    assert next(iter(times)) == (9, 1000)
    assert len([*times]) == MOST


def test_without_times_nothing_is_concluded() -> None:
    times = WrittenTimes([(9, 0)])
    assert not times.is_replaced(3, 5000)
    assert not WrittenTimes([(9, 1000)]).is_replaced(10, 5000)
    assert WrittenTimes().newest == 0
