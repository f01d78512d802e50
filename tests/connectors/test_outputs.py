"""What a StreamSink publishes for a message: bodies, the key, and the head of AMQP messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from flowstream.client import AmqpMessage, encode_data_all
from flowstream.connectors.outputs import head_of, key_of, outputs_of
from flowstream.pipeline import Message
from flowstream.pipeline.delivery import Delivery
from tests.pipeline.deciders.test_source_order import Partition


@dataclass
class Order:
    id: Any


def message(data: Any) -> Message[Any]:
    return Message(Delivery(Partition("orders"), 0, 1), 0, data, b"")


def test_data_becomes_one_body_or_those_of_a_list() -> None:
    assert outputs_of(lambda data: data, b"one") == [b"one"]
    assert outputs_of(lambda data: [data, b"two"], b"one") == [b"one", b"two"]
    assert outputs_of(lambda data: (), b"one") == []


@pytest.mark.parametrize("found", ["text", [b"one", 2], None])
def test_only_bytes_are_bodies(found: Any) -> None:
    with pytest.raises(TypeError, match=r"encode returned .*, not bytes"):
        outputs_of(lambda data: found, None)


@pytest.mark.parametrize(
    ("key", "data", "found"),
    [
        ("id", {"id": "a"}, "a"),
        ("id", Order(7), "7"),
        (lambda message: message.data.id * 2, Order(7), "14"),
    ],
)
def test_the_key_is_a_field_or_what_a_function_returns(key: Any, data: Any, found: str) -> None:
    assert key_of(key, message(data)) == found


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ({"x": 1}, LookupError, "the data has no field 'id', which is the key"),
        (Order(True), TypeError, "the key is a bool"),
        (Order(None), TypeError, "the key is a NoneType"),
        (Order("\ud800"), UnicodeEncodeError, "surrogates"),
    ],
)
def test_what_is_no_key_is_refused(data: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        key_of("id", message(data))


def test_the_head_goes_before_any_data_section() -> None:
    properties = {"source": "orders"}
    whole = AmqpMessage.of(b"body", application_properties=properties).raw
    assert head_of(properties) + encode_data_all([b"body"])[0] == whole
