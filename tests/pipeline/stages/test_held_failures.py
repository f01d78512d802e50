"""Failures wait for the order of the source, and a message's failures go on together."""

from __future__ import annotations

from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.stages.held_failures import HeldFailures
from tests.pipeline.deciders.test_source_order import Partition


def failures(*messages: Message[None]) -> list[Failure]:
    return [Failure(message, f"at {message.offset}") for message in messages]


def offsets(found: list[Failure]) -> list[int]:
    return [failure.message.offset for failure in found]


def test_a_failure_waits_for_the_messages_before_it() -> None:
    held, delivery = HeldFailures(), Partition("orders").deliver(10, 3)
    first, _, last = (Message(delivery, index, None, b"") for index in range(3))
    assert held.put(failures(last)) == ([], [])
    assert (held.count, held.waits_for) == (1, [("orders", 10)])
    assert offsets(held.put(failures(first))[0]) == [10]
    assert (held.count, held.settled()) == (1, [])
    delivery.settle([1])
    assert offsets(held.settled()) == [12]
    assert held.count == 0


def test_the_failures_of_a_message_go_on_together() -> None:
    """It went to two batchers, and failed in both while it waited."""
    held, delivery = HeldFailures(), Partition("orders").deliver(0, 2)
    _, second = (Message(delivery, index, None, b"") for index in range(2))
    assert held.put(failures(second)) == ([], [])
    assert held.put(failures(second)) == ([], [])
    assert held.count == 2
    delivery.settle([0])
    assert offsets(held.settled()) == [1, 1]


def test_what_is_withdrawn_is_not_released() -> None:
    held, delivery = HeldFailures(), Partition("orders").deliver(0, 3)
    _, second, third = (Message(delivery, index, None, b"") for index in range(3))
    held.put(failures(second, third))
    taken = held.withdraw(lambda messages: (messages[:1], messages[1:]))
    assert offsets(taken) == [2]
    delivery.settle([0])
    assert offsets(held.settled()) == [1]
    assert held.count == 0
