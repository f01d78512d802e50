"""Batches that a sink rolls: one for each window and value, closed when the window is over."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline import Message, Rolling
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.batching import Batching
from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.message import Detached
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.slice import Slice

HOUR = 3600.0
START = 500_000 * HOUR
"""The beginning of a window, in seconds since the epoch; `now` counts from it."""


class Clock:
    now = 0.0

    def wall(self) -> float:
        return START + self.now


def batching_of(rolling: Rolling, clock: Clock, **options: Any) -> Batching:
    options = dict(rolling.defaults) | options
    return Batching(BatcherOptions("files", **options), rolling=rolling, wall=clock.wall)


def written(offset: int, count: int, seconds: float | None) -> Slice[Any]:
    """Messages of a chunk that was written so many seconds after START."""
    timestamp = 0 if seconds is None else int((START + seconds) * 1000)
    delivery = Delivery(Detached("s"), offset, count, timestamp=timestamp)
    bodies = [b"x" * 10] * count
    return Slice([(delivery, range(count))], raw=bodies, data=[*range(offset, offset + count)])


def test_a_window_is_closed_after_its_end() -> None:
    clock = Clock()
    batching = batching_of(Rolling(window=HOUR), clock, batch_timeout=60)
    clock.now = 100.0
    assert batching.put(written(0, 5, 99), clock.now) == []
    assert batching.deadline == HOUR + 60
    clock.now = 3590.0
    assert batching.put(written(5, 5, 3589), clock.now) == []
    clock.now = 3605.0  # a message of the old window, and one of the new one
    assert batching.put(written(10, 1, 3599), clock.now) == []
    assert batching.put(written(11, 1, 3601), clock.now) == []
    assert batching.deadline == 3605 + 60
    assert batching.expire(3664) == []
    (batch,) = batching.expire(3665)
    assert (batch.offsets, batch.trigger) == ([*range(11)], "timeout")
    assert batching.deadline == 2 * HOUR + 60


def test_a_slice_is_cut_where_a_window_ends() -> None:
    clock = Clock()
    batching = batching_of(Rolling(window=HOUR), clock)
    part = written(0, 3, 10)
    part.extend(written(3, 2, HOUR + 1))
    part.extend(written(5, 2, HOUR + 2))
    assert batching.put(part, 0.0) == []
    assert [batch.offsets for batch in batching.flush("drain")] == [[0, 1, 2], [3, 4, 5, 6]]


def test_what_is_read_late_is_closed_when_no_more_of_its_window_comes() -> None:
    clock = Clock()
    clock.now = 10 * HOUR
    batching = batching_of(Rolling(window=HOUR), clock, batch_timeout=60)
    for second in range(50):  # an hour that was over long ago, read for longer than its timeout
        assert batching.put(written(second, 1, second * 10), clock.now + second * 2) == []
    assert batching.deadline == clock.now + 98 + 60


def test_an_unknown_time_counts_as_now() -> None:
    clock = Clock()
    clock.now = 1.5 * HOUR
    batching = batching_of(Rolling(window=HOUR), clock, batch_timeout=60)
    batching.put(written(0, 1, None), clock.now)
    assert batching.deadline == 2 * HOUR + 60


def test_bytes_close_a_batch_and_each_value_has_its_own() -> None:
    rolling = Rolling(max_bytes=30, apart=lambda message: message.data % 2)
    batching = batching_of(rolling, Clock())
    closed = batching.put(written(0, 7, 0), 0.0)
    assert [(batch.offsets, batch.trigger) for batch in closed] == [
        ([0, 2, 4], "bytes"), ([1, 3, 5], "bytes"),
    ]  # fmt: skip
    assert [batch.offsets for batch in batching.expire(60.0)] == [[6]]


def test_the_defaults_leave_messages_together() -> None:
    assert Rolling(max_bytes=5).defaults == {"size": None, "max_bytes": 5, "batch_timeout": 60.0}
    assert [Rolling(window=w).defaults["batch_timeout"] for w in (2, 60, 3600)] == [1.0, 6.0, 60.0]


chunks = st.lists(
    st.tuples(st.integers(1, 5), st.none() | st.integers(0, 20), st.floats(0, 15)), max_size=25
)


@given(chunks, st.none() | st.integers(1, 3), st.none() | st.integers(1, 60), st.booleans())
def test_each_message_is_in_one_batch_of_its_window(
    chunks: Any, modulus: int | None, max_bytes: int | None, whole: bool
) -> None:
    apart = None if modulus is None else (lambda message: message.data % modulus)
    rolling, clock = Rolling(window=5.0, apart=apart), Clock()
    batching = batching_of(rolling, clock, max_bytes=max_bytes)
    closed: list[Batch[Any]] = []
    offset = 0
    for count, seconds, pause in chunks:
        part = written(offset, count, seconds)
        offset += count
        closed += (
            batching.put_each(part.messages, clock.now) if whole else batching.put(part, clock.now)
        )
        clock.now += pause
        closed += batching.expire(clock.now)
        assert batching.deadline is None or batching.deadline > clock.now
    closed += batching.flush("drain")
    assert sorted(n for batch in closed for n in batch.offsets) == [*range(offset)]
    for batch in closed:
        known: list[Message[Any]] = [message for message in batch if message.timestamp]
        assert len({rolling.begin(message.timestamp, 0.0) for message in known}) <= 1
        assert modulus is None or len({message.data % modulus for message in batch}) == 1
        assert max_bytes is None or batch.bytes <= max_bytes or batch.size == 1
