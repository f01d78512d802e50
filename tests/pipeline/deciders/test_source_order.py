"""The order of the source equals a naive model, whatever comes in whatever order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.deciders.source_order import SourceOrder
from flowstream.pipeline.delivery import Delivery, OffsetTracker
from flowstream.pipeline.message import Message
from flowstream.pipeline.slice import Slice


class Partition:
    """As much of a source partition as the order needs."""

    def __init__(self, stream: str, tracker: OffsetTracker | None = None) -> None:
        self.stream = stream
        self.tracker = tracker or OffsetTracker()
        self.mark = self.tracker.open()

    def deliver(self, base: int, count: int) -> Delivery:
        delivery = Delivery(self, base, count)
        self.mark.add(delivery)
        return delivery


def columns(delivery: Delivery, *runs: range) -> Slice[Any]:
    count = sum(map(len, runs))
    return Slice([(delivery, run) for run in runs], raw=[b""] * count, data=[None] * count)


def rows(*places: tuple[Delivery, int]) -> Slice[Any]:
    return Slice.of([Message(delivery, index, None, b"") for delivery, index in places])


def offsets(part: Slice[Any] | None) -> list[int]:
    return [] if part is None else part.offsets


def test_a_slice_in_order_goes_on_as_it_is() -> None:
    order, partition = SourceOrder(), Partition("orders")
    first, second = partition.deliver(0, 5), partition.deliver(5, 5)
    for part in (columns(first, range(5)), columns(second, range(2)), columns(second, range(2, 5))):
        assert order.put(part).released is part
    assert order.held == 0


def test_a_slice_that_is_early_waits_and_says_what_for() -> None:
    order, partition = SourceOrder(), Partition("orders")
    delivery = partition.deliver(10, 6)
    assert order.put(columns(delivery, range(3, 6))).released is None
    assert (order.held, order.waits_for) == (3, [("orders", 10)])
    assert offsets(order.put(columns(delivery, range(1))).released) == [10]
    assert order.waits_for == [("orders", 11)]
    delivery.settle([1])
    assert order.settled() is None
    delivery.settle([2])
    assert offsets(order.settled()) == [13, 14, 15]
    assert order.held == 0


def test_a_gap_with_an_undecided_message_splits_a_slice() -> None:
    order, partition = SourceOrder(), Partition("orders")
    delivery = partition.deliver(0, 6)
    delivery.settle([1])
    passed = order.put(rows(*[(delivery, index) for index in (0, 2, 4, 5)]))
    assert offsets(passed.released) == [0, 2]
    assert offsets(order.put(columns(delivery, range(3, 4))).released) == [3, 4, 5]


def test_an_abandoned_message_is_never_decided() -> None:
    order, partition = SourceOrder(), Partition("orders")
    delivery = partition.deliver(0, 3)
    assert order.put(columns(delivery, range(1, 3))).released is None
    assert delivery.abandon(0)
    assert order.settled() is None
    out = order.withdraw(lambda messages: ([], messages))
    assert [message.offset for message in out] == [1, 2]
    assert order.held == 0


def test_partitions_do_not_wait_for_each_other() -> None:
    order = SourceOrder()
    one, two = Partition("one").deliver(0, 2), Partition("two").deliver(0, 2)
    assert order.put(rows((one, 1), (two, 0), (two, 1))).released is not None
    assert order.waits_for == [("one", 0)]


def test_a_partition_waits_for_one_that_its_stream_had_before() -> None:
    """A producer that was started again continues behind the messages that are in flight."""
    order, tracker = SourceOrder(), OffsetTracker()
    old = Partition("orders", tracker).deliver(0, 2)
    new = Partition("orders", tracker).deliver(2, 1)
    assert order.put(columns(new, range(1))).released is None
    assert offsets(order.put(columns(old, range(2))).released) == [0, 1]
    assert order.settled() is None  # released is not settled: it may still fail in the sink
    old.settle(range(2))
    assert offsets(order.settled()) == [2]


def test_what_was_settled_early_is_not_waited_for_and_can_be_late() -> None:
    order, partition = SourceOrder(), Partition("orders")
    delivery = partition.deliver(0, 4)
    early = Message(delivery, 1, None, b"")
    early._more().early = True
    delivery.settle([1])
    assert offsets(order.put(rows((delivery, 0), (delivery, 2))).released) == [0, 2]
    passed = order.put(Slice.of([early]))
    assert passed.released is None
    assert passed.late == [early]
    assert offsets(order.put(columns(delivery, range(3, 4))).released) == [3]


def test_what_was_settled_early_goes_on_in_its_place() -> None:
    order, partition = SourceOrder(), Partition("orders")
    delivery = partition.deliver(0, 3)
    early = Message(delivery, 1, None, b"")
    early._more().early = True
    delivery.settle([1])
    part = Slice.of([Message(delivery, 0, None, b""), early, Message(delivery, 2, None, b"")])
    assert offsets(order.put(part).released) == [0, 1, 2]


@given(st.data())
def test_each_message_goes_on_as_soon_as_all_before_it_are_decided(data: st.DataObject) -> None:
    order = SourceOrder()
    partitions = [Partition(f"s{n}") for n in range(data.draw(st.integers(1, 2)))]
    places: list[tuple[Delivery, int]] = []
    for partition in partitions:
        base = 0
        for size in data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)):
            delivery = partition.deliver(base, size)
            places += [(delivery, index) for index in range(size)]
            base += size + data.draw(st.integers(0, 2))
    fate = {place: data.draw(st.sampled_from(["here", "here", "settled"])) for place in places}
    shuffled = data.draw(st.permutations(places)) if data.draw(st.booleans()) else places
    decided: set[tuple[Delivery, int]] = set()
    came: set[tuple[Delivery, int]] = set()
    released: list[tuple[Delivery, int]] = []

    def go_on(part: Slice[Any] | None) -> None:
        for delivery, indexes in [] if part is None else part.runs:
            released.extend((delivery, index) for index in indexes)
            decided.update((delivery, index) for index in indexes)

    while shuffled:
        count = data.draw(st.integers(1, 5))
        group, shuffled = shuffled[:count], shuffled[count:]
        for delivery, index in group:
            if fate[delivery, index] == "settled":
                delivery.settle([index])
                decided.add((delivery, index))
        here = [place for place in group if fate[place] == "here"]
        came.update(here)
        if here:
            as_columns = len({id(d) for d, _ in here}) == 1 and len(here) == 1
            part = columns(here[0][0], range(here[0][1], here[0][1] + 1)) if as_columns else None
            passed = order.put(part or rows(*here))
            assert not passed.late
            go_on(passed.released)
        go_on(order.settled())
        for partition in partitions:
            own = [place for place in places if place[0].partition is partition]
            for number, place in enumerate(own):
                if place in came and all(before in decided for before in own[:number]):
                    assert place in released
        assert order.held == len(came) - len(released)
    for partition in partitions:
        theirs = [d.offset(i) for d, i in released if d.partition is partition]
        assert theirs == sorted(theirs)
    assert len(released) == len(came)
