"""Slices lose nothing, keep the order, are fair and bounded; queues block only one key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline import Message
from flowstream.pipeline.deciders.dispatch import TARGET, Pending, SliceSizer
from flowstream.pipeline.deciders.queues import Queues

moves = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 20)),
        st.tuples(st.just("front"), st.integers(0, 5)),
        st.tuples(st.just("take"), st.integers(1, 15)),
    ),
    max_size=60,
)


@given(moves)
def test_a_queue_is_a_queue(moves):
    pending, model, n = Pending(), [], 0
    for move, count in moves:
        items = list(range(n, n + count))
        if move == "put":
            pending.put(list(items))
            model += items
            n += count
        elif move == "front":
            pending.put_front(list(items))
            model = items + model
            n += count
        else:
            assert pending.take(count) == model[:count]
            model = model[count:]
        assert len(pending) == len(model)


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


def keyed(n, key):
    message = Message.new(n, offset=n)
    message._hash = key
    return message


def test_a_blocked_key_holds_back_its_own_messages_only():
    queues = Queues(2, partitioned=True)
    first, second, other = keyed(0, 4), keyed(1, 4), keyed(2, 6)
    queues.put([first, second, other])
    assert [m.data for m in queues.take(0, 10)] == [0, 1, 2]
    queues.block(first)
    assert not queues.hold_back(first)
    assert queues.hold_back(second)
    assert not queues.hold_back(other)
    assert queues.waiting == 1
    assert queues.unblock(second) == []
    assert queues.unblock(first) == [second]
    assert queues.waiting == 0
    assert not queues.blocked


def test_a_partition_has_one_worker():
    queues = Queues(3, partitioned=True)
    queues.put([keyed(n, n) for n in range(30)])
    for worker in range(3):
        assert {m._hash % 3 for m in queues.take(worker, 100)} == {worker}
