"""A batcher loses and repeats nothing, and its batches respect every limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline import Message
from flowstream.pipeline.deciders.batching import Batching, Rejected
from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.message import Detached
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.slice import Slice

sends = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.integers(0, 30), st.integers(0, 2), st.booleans(), st.integers(0, 3)),
            max_size=12,
        ),
        st.floats(0, 2),
    ),
    max_size=15,
)


def message(n: int, *, size: int = 1, key: int = 0, flush: bool = False, partition: int = 0):
    made = Message.new(n, raw=b"x" * size, offset=n)
    made._hash = partition
    if key or flush:
        made.to(key=key or None, flush=flush)
    return made


def columns(messages):
    """The same messages as a slice without objects for them."""
    if not messages:
        return Slice.of([])
    first, count = messages[0].offset, len(messages)
    delivery = Delivery(Detached("s"), first, count)
    raw, data = [m.raw for m in messages], [m.data for m in messages]
    return Slice([(delivery, range(count))], raw=raw, data=data)


@given(sends, st.integers(1, 8), st.none() | st.integers(1, 60), st.booleans())
def test_nothing_is_lost_or_repeated_and_limits_hold(sends, size, max_bytes, partitioned):
    batching = Batching(
        BatcherOptions("b", size=size, batch_timeout=1.0, max_bytes=max_bytes),
        partition=(lambda m: m._hash) if partitioned else None,
    )
    closed, n, now = [], 0, 0.0
    for group, pause in sends:
        messages = []
        for length, key, flush, partition in group:
            messages.append(message(n, size=length, key=key, flush=flush, partition=partition))
            n += 1
        if any(m._extra is not None for m in messages):
            closed += batching.put_each(messages, now)
        else:
            closed += batching.put(Slice.of(messages) if partitioned else columns(messages), now)
        now += pause
        expired = batching.expire(now)
        assert all(b.trigger == "timeout" and now >= b.opened + 1.0 for b in expired)
        closed += expired
        assert batching.deadline is None or batching.deadline > now
        assert batching.messages == n - sum(b.size for b in closed)
    closed += batching.flush("drain")
    assert batching.messages == 0
    assert batching.open == 0
    assert sorted(m.offset for b in closed for m in b) == list(range(n))
    seen: dict[tuple[object, object], int] = {}
    for batch in closed:
        assert 1 <= batch.size <= size
        if max_bytes is not None:
            assert batch.bytes <= max_bytes or batch.size == 1
        assert {m.key for m in batch} == {batch.key}
        if partitioned:
            assert {m._hash for m in batch} == {batch.partition}
        offsets = [m.offset for m in batch]
        assert offsets == sorted(offsets)
        place = batch.key, batch.partition
        assert seen.get(place, -1) < offsets[0]
        seen[place] = offsets[-1]


class Compared(int):
    """A key of a user's class: messages with one are looked at one by one."""


@given(sends, st.integers(1, 8), st.none() | st.integers(1, 60), st.booleans(), st.booleans())
def test_together_and_one_by_one_make_the_same_batches(sends, size, max_bytes, partitioned, keyed):
    def batches(key_of) -> dict[object, list[object]]:
        batching = Batching(
            BatcherOptions("b", size=size, batch_timeout=1.0, max_bytes=max_bytes),
            partition=(lambda m: m._hash) if partitioned else None,
            keyed=keyed,
        )
        made: dict[object, list[object]] = {}
        closed, n, now = [], 0, 0.0
        for group, pause in sends:
            messages = []
            for length, key, flush, partition in group:
                one = message(n, size=length, partition=partition)
                one.to(key=key_of(key) if key else None, flush=flush)
                messages.append(one)
                n += 1
            closed += batching.put_each(messages, now)
            now += pause
            closed += batching.expire(now)
        for batch in [*closed, *batching.flush("drain")]:
            place = made.setdefault((batch.partition, batch.key), [])
            place.append((batch.offsets, batch.trigger, batch.opened))
        return made

    assert batches(int) == batches(Compared)


def test_age_counts_from_the_first_message():
    batching = Batching(BatcherOptions("b", size=10, batch_timeout=1.0))
    batching.put(Slice.of([message(0)]), 5.0)
    batching.put(Slice.of([message(1)]), 5.9)
    assert batching.deadline == 6.0
    assert batching.expire(5.99) == []
    (batch,) = batching.expire(6.0)
    assert (batch.size, batch.trigger, batch.opened) == (2, "timeout", 5.0)
    assert batching.deadline is None


def test_a_message_larger_than_the_ceiling_goes_alone():
    batching = Batching(BatcherOptions("b", size=10, batch_timeout=1.0, max_bytes=100))
    closed = batching.put(
        Slice.of([message(0, size=60), message(1, size=300), message(2, size=60)]), 0
    )
    assert [(b.size, b.bytes, b.trigger) for b in closed] == [(1, 60, "bytes"), (1, 300, "bytes")]


def test_flush_closes_only_its_own_batch():
    batching = Batching(BatcherOptions("b", size=10, batch_timeout=1.0))
    closed = batching.put_each(
        [message(0, key=1), message(1, key=2), message(2, key=1, flush=True)], 0
    )
    assert [([m.offset for m in b], b.trigger) for b in closed] == [([0, 2], "flush")]
    assert batching.open == 1


def test_a_function_decides_when_a_batch_is_full():
    def weigh(m, weight):
        weight += m.data
        return (True, 0) if weight >= 10 else (False, weight)

    batching = Batching(BatcherOptions("b", size=(0, weigh), batch_timeout=1.0))
    closed = batching.put(Slice.of([message(n) for n in (3, 3, 3, 3, 9, 1, 2)]), 0)
    assert [[m.data for m in b] for b in closed] == [[3, 3, 3, 3], [9, 1]]
    assert batching.messages == 1


@pytest.mark.parametrize("answer", [None, 5, (True,), "no"])
def test_a_size_function_that_answers_nonsense_is_reported_with_its_message(answer):
    size = (0, lambda m, acc: answer if m.data == 1 else (False, acc))
    batching = Batching(BatcherOptions("b", size=size, batch_timeout=1.0))
    with pytest.raises(Rejected) as caught:
        batching.put(Slice.of([message(0), message(1), message(2)]), 0)
    assert caught.value.index == 1
    assert batching.messages == 1
