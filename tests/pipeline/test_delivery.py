"""The watermark equals a naive model, whatever is settled or held in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.delivery import Delivery, OffsetTracker, Watermark

spans_of = st.lists(st.integers(0, 6), min_size=1, max_size=8)


def settle(delivery: Delivery, index: int) -> None:
    delivery.settle([index])


def abandon(delivery: Delivery, index: int) -> None:
    assert delivery.abandon(index)


def naive(delivered: list[tuple[int, bool]], skipped: list[int]) -> int | None:
    """The highest offset at and below which everything delivered is settled."""
    best = None
    for offset in sorted([o for o, _ in delivered] + skipped):
        if any(not done for o, done in delivered if o <= offset):
            break
        best = offset
    return best


@given(spans_of, st.data())
def test_watermark_equals_a_naive_model(sizes, data):
    mark, deliveries, base, skipped = Watermark(), [], data.draw(st.integers(0, 5)), []
    for size in sizes:
        gap = data.draw(st.integers(0, 2))
        base += gap
        if data.draw(st.booleans()):
            offsets, at = [], base
            for _ in range(size):
                at += data.draw(st.integers(1, 3))
                offsets.append(at)
            delivery = Delivery(
                "partition", offsets[0] if offsets else base, size, offsets=offsets or None
            )
        else:
            delivery = Delivery("partition", base, size)
        mark.add(delivery)
        deliveries.append(delivery)
        if not size:
            skipped.append(delivery.last)
        base = delivery.last + 1
    places = [(delivery, index) for delivery in deliveries for index in range(delivery.count)]
    state = {(id(delivery), index): False for delivery, index in places}

    def check() -> None:
        delivered = [(delivery.offset(i), state[id(delivery), i]) for delivery, i in places]
        expected = naive(delivered, [s for s in skipped if s >= 0])
        assert (mark.value if mark.value is None or mark.value >= 0 else None) == expected
        unsettled = [offset for offset, done in delivered if not done]
        assert mark.barrier == (min(unsettled) if unsettled else None)

    check()
    for delivery, index in data.draw(st.permutations(places)):
        if data.draw(st.integers(0, 9)) == 0:
            abandon(delivery, index)
        else:
            settle(delivery, index)
            state[id(delivery), index] = True
        check()


def test_settled_spans_are_forgotten():
    mark = Watermark()
    deliveries = [Delivery("partition", base, 10) for base in range(0, 100, 10)]
    for delivery in deliveries:
        mark.add(delivery)
    for delivery in deliveries:
        for index in range(10):
            settle(delivery, index)
    assert mark.value == 99
    assert len(mark) == 0


def test_a_held_message_keeps_the_watermark_before_it():
    mark, delivery = Watermark(), Delivery("partition", 10, 3)
    mark.add(delivery)
    settle(delivery, 0)
    settle(delivery, 2)
    abandon(delivery, 1)
    assert mark.value == 10
    assert mark.open is delivery


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=20))
def test_two_lanes_of_one_stream_never_commit_past_either(messages):
    tracker = OffsetTracker()
    marks = [tracker.open(), tracker.open()]
    for offset, (partition, done) in enumerate(messages):
        delivery = Delivery("partition", offset, 1)
        marks[partition].add(delivery)
        if done:
            settle(delivery, 0)
    exact = naive([(o, done) for o, (_, done) in enumerate(messages)], [])
    value = tracker.value()
    assert value is None or (exact is not None and value <= exact)
    if all(done for _, done in messages):
        assert value == exact


def test_due_only_when_advanced_and_not_behind_what_is_stored():
    tracker = OffsetTracker()
    tracker.resume(5)
    mark = tracker.open()
    deliveries = [Delivery("partition", offset, 1) for offset in (6, 7)]
    for delivery in deliveries:
        mark.add(delivery)
    assert tracker.due() is None
    settle(deliveries[0], 0)
    assert tracker.due() == 6
    tracker.store(6)
    assert tracker.due() is None


@pytest.mark.parametrize(
    ("found", "committed"),
    [((), None), ((-1,), -1), ((0,), 0), ((-1, 0), 0), ((0, -1), 0), ((7, 5), 7)],
)
def test_what_was_found_stored_is_committed_and_not_of_this_run(found, committed):
    tracker = OffsetTracker()
    for offset in found:
        tracker.resume(offset)
    assert (tracker.committed, tracker.advanced) == (committed, False)
    tracker.store(9)
    assert (tracker.committed, tracker.advanced) == (9, True)


def test_a_fenced_lane_commits_nothing():
    tracker = OffsetTracker()
    mark, delivery = tracker.open(), Delivery("partition", 0, 1)
    mark.add(delivery)
    settle(delivery, 0)
    tracker.forget(mark)
    assert tracker.fenced
    assert tracker.due() is None
