"""A batch has its messages as columns and as objects, and both stay the same."""

from __future__ import annotations

import pickle

from flowstream.pipeline import Batch, Message, Slice
from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.message import Detached

BODIES = [b"a", b"bb", b"ccc"]


def columns() -> Batch[int]:
    """A batch of which no message was made yet."""
    delivery = Delivery(Detached("orders"), 10, 3)
    return Batch(Slice([(delivery, range(3))], raw=list(BODIES), data=[1, 2, 3]))


def test_columns_are_given_without_making_messages() -> None:
    batch = columns()
    assert (batch.data, batch.raw, batch.offsets) == ([1, 2, 3], BODIES, [10, 11, 12])
    assert (len(batch), batch.size, batch.bytes) == (3, 3, 6)
    assert batch._slice._messages is None


def test_columns_follow_the_list_of_messages_once_a_handler_has_it() -> None:
    batch = columns()
    batch.messages.reverse()
    batch.messages.pop()
    assert (batch.data, batch.raw, batch.offsets) == ([3, 2], [b"ccc", b"bb"], [12, 11])
    assert batch.size == len(list(batch)) == 2
    assert batch._slice.offsets == [10, 11, 12], "what is settled does not depend on the handler"


def test_new_makes_one_for_a_handlers_test() -> None:
    batch = Batch.new("a", "b", key="k", trigger="timeout")
    assert (batch.data, batch.offsets) == (["a", "b"], [0, 1])
    assert (batch.key, batch.trigger, batch.attempt, batch.partition) == ("k", "timeout", 1, None)


def test_the_next_attempt_is_a_batch_of_clones_in_the_place_of_the_first() -> None:
    messages = [Message.new(n, offset=n) for n in range(3)]
    batch = Batch(messages, batcher="out", key="k", partition=2, opened=5.0)
    batch._remember()
    batch.messages[1].fail("no")
    again = batch._again([batch.messages[1]])
    assert (again.batcher, again.key, again.partition, again.opened) == ("out", "k", 2, 5.0)
    assert (again.attempt, again.trigger, again.offsets) == (2, "retry", [1])
    assert again.messages[0] is not messages[1]
    assert again.messages[0].failed is None
    assert again.messages[0].attempt == 2


def test_a_batch_travels_to_another_process_without_its_pipeline() -> None:
    batch = columns()
    batch.attempt, batch.key, batch.trigger = 2, "k", "bytes"
    arrived = pickle.loads(pickle.dumps(batch))
    assert (arrived.data, arrived.raw, arrived.offsets) == ([1, 2, 3], BODIES, [10, 11, 12])
    assert (arrived.attempt, arrived.key, arrived.trigger) == (2, "k", "bytes")
