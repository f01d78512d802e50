"""The credit rule of subscriptions, and what their properties mean."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.records import StreamRecord
from flowstream.broker.registrations import Subscription, filter_of
from flowstream.broker.stream import Stream, Tail
from flowstream.protocol import OffsetSpec


class Wakeable:
    def wake(self) -> None:
        pass


def subscription(credit: int, **properties: str) -> Subscription:
    session: Any = Wakeable()
    stream = Stream(StreamRecord(1, "s", {}))
    names = {name.replace("_", "-"): value for name, value in properties.items()}
    return Subscription(session, 0, stream, OffsetSpec.first(), credit, names)


def move_end(stream: Stream, count: int) -> None:
    end = stream.end + count
    stream.durable = Tail(end, end - 1, end - 1)


class Naive:
    """rabbit_stream_reader:send_chunks, with chunks of one record."""

    def __init__(self, credit: int) -> None:
        self.credit, self.limit, self.position, self.end = credit, credit // 2, 0, 0

    def invoked(self) -> None:
        if self.credit > self.limit:
            sent = min(self.credit, self.end - self.position)
            self.credit -= sent
            self.position += sent


@given(
    credit=st.integers(0, 12),
    moves=st.lists(st.tuples(st.sampled_from(["credit", "data"]), st.integers(1, 9))),
)
def test_credit_is_used_as_rabbitmq_uses_it(credit: int, moves: list[tuple[str, int]]) -> None:
    tested, naive = subscription(credit), Naive(credit)
    tested.attach(0)
    for move, count in moves:
        if move == "credit":
            tested.credit += count
            naive.credit += count
        else:
            move_end(tested.stream, count)
            naive.end += count
        tested.wake()
        naive.invoked()
        while tested.ready:
            assert tested.position is not None
            tested.position += 1
            tested.credit -= 1
        if tested.credit == 0 or tested.position == tested.stream.end:
            tested.sending = False
        assert (tested.position, tested.credit) == (naive.position, naive.credit)


def test_a_detached_subscription_is_not_served() -> None:
    tested = subscription(5)
    move_end(tested.stream, 3)
    ready: list[bool] = []
    for change in (tested.wake, lambda: tested.attach(0), tested.detach):
        change()
        ready.append(tested.ready)
    assert ready == [False, True, False]


def test_properties() -> None:
    plain = subscription(1, single_active_consumer="TRUE")
    assert (plain.name, plain.single_active, plain.filter) == ("", False, None)
    single = subscription(1, single_active_consumer="true", name="n")
    assert (single.name, single.single_active) == ("n", True)


def test_filter_of() -> None:
    chosen = filter_of({"filter.0": "a", "filter.1": "b", "match-unfiltered": "True"})
    assert chosen is not None
    assert (chosen.values, chosen.match_unfiltered) == (frozenset({"a", "b"}), False)
    both = filter_of({"filter.0": "a", "match-unfiltered": "true"})
    assert both is not None
    assert (both.values, both.match_unfiltered) == (frozenset({"a", ""}), True)
    assert filter_of({"match-unfiltered": "true"}) is None
