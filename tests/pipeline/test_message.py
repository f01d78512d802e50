"""What a handler decides about a message is on the message, and travels with its clones."""

from __future__ import annotations

import pickle

import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import Message
from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.message import Detached, Failure, Joint


def test_a_new_message_has_nothing_of_its_own() -> None:
    message = Message.new({"n": 1}, raw=b"{}", stream="orders", offset=7, timestamp=5)
    assert (message.data, message.raw, message.body) == ({"n": 1}, b"{}", b"{}")
    assert (message.stream, message.offset, message.timestamp) == ("orders", 7, 5)
    assert (message.attempt, message.key, message.batchers) == (1, None, ())
    assert (message.failed, message.dropped) == (None, None)
    assert (message.properties, message.ack_options) == ({}, {})
    assert message._extra is None
    assert not message._delivery.touched


def test_a_decision_marks_the_delivery_so_that_its_messages_are_looked_at() -> None:
    delivery = Delivery(Detached("orders"), 10, 2)
    first, second = (Message(delivery, index, None, b"") for index in range(2))
    second.drop("not for us")
    assert delivery.touched
    assert (first.dropped, second.dropped) == (None, "not for us")


def test_a_reason_is_a_text_or_an_exception() -> None:
    message = Message.new(None)
    message.fail("too old", retry=False)
    assert message.failed == "too old"
    failure = message._more().failure
    assert failure is not None
    assert (failure.retry, failure.error, failure.error_name) == (False, None, "")
    message.fail(error := ValueError("no"))
    failure = message._more().failure
    assert failure is not None
    assert (failure.retry, failure.error, failure.error_name) == (True, error, "ValueError")


def test_an_empty_reason_is_the_usual_one() -> None:
    """As `message.fail(str(error))` gives it for an error without a text."""
    message = Message.new(None)
    message.fail(str(TimeoutError()))
    assert message.failed == "failed"
    message.drop(" ")
    assert message.dropped == "dropped"


def test_a_reason_is_more_than_the_key_that_is_missing() -> None:
    """The text of a KeyError is only the key."""
    message = Message.new(None)
    for error, reason in (
        (KeyError("id"), "KeyError: 'id'"),
        (SystemExit(3), "SystemExit: 3"),
        (LookupError("a sentence"), "a sentence"),
        (ConfigurationError("a sentence"), "a sentence"),
        (TimeoutError(), "TimeoutError"),
    ):
        message.fail(error)
        assert message.failed == reason
        message.drop(error)
        assert message.dropped == reason


def test_names_of_batchers_in_a_list_are_refused() -> None:
    message = Message.new(None)
    with pytest.raises(TypeError, match=r"such as message\.to\('eu', 'audit'\), not \(\['eu'\],\)"):
        message.to(["eu"])  # type: ignore[arg-type]
    assert message.batchers == ()


def test_passwords_are_in_no_reason() -> None:
    text = "cannot reach amqp://me:secret@host"
    message = Message.new(None)
    message.fail(text)
    message.drop(text)
    failure = Failure(message, text)
    for reason in (failure.reason, message.failed, message.dropped):
        assert reason == "cannot reach amqp://me:***@host"


def test_routes_are_kept_once_each_and_until_others_are_given() -> None:
    message = Message.new(None)
    message.to("a", "b", "a", key=3)
    assert (message.batchers, message.key) == (("a", "b"), 3)
    message.to(key=4)
    assert (message.batchers, message.key) == (("a", "b"), 4)
    with pytest.raises(TypeError, match="unhashable"):
        message.to("c", key=[])  # type: ignore[arg-type]
    assert message.batchers == ("a", "b")


def test_a_clone_has_what_belongs_to_the_message_and_no_failure() -> None:
    message = Message.new({"n": 1}, raw=b"{}", stream="orders", offset=7)
    message.configure_ack(priority=1)
    message.configure_ack(multiple=True)
    message.to("a", key="k", flush=True)
    message.fail("broken")
    joint = Joint(message, 2)
    again, decided = message._clone(data=1, attempt=2), message._clone(data=2, decided=True)
    branch = message._clone(data=3, joint=joint)
    for clone in (again, decided, branch):
        assert (clone.stream, clone.offset, clone.raw) == ("orders", 7, b"{}")
        assert clone.ack_options == {"priority": 1, "multiple": True}
        assert clone.failed is None
    assert (again.attempt, again.batchers, again.key) == (2, (), None)
    assert (decided.attempt, decided.batchers, decided.key) == (1, ("a",), "k")
    assert branch._more().joint is joint


def test_a_message_travels_to_another_process_without_its_pipeline() -> None:
    message = Message.new({"n": 1}, raw=b"{}", stream="orders", offset=7, timestamp=5)
    message = message._clone(data=message.data, attempt=3)
    message.to("a", key="k")
    arrived = pickle.loads(pickle.dumps(message))
    assert (arrived.data, arrived.raw) == ({"n": 1}, b"{}")
    assert (arrived.stream, arrived.offset, arrived.timestamp) == ("orders", 7, 5)
    assert (arrived.attempt, arrived.key) == (3, "k")


def test_an_object_is_known_as_one_in_another_process() -> None:
    message = Message.new({"n": 1})
    assert not pickle.loads(pickle.dumps(message)).is_object
    message._delivery.objects = [message.data]
    assert pickle.loads(pickle.dumps(message)).is_object
