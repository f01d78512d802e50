"""AMQP 1.0 messages: every type and section both ways, lazily, and the short way for data."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol.amqp_encode import encode_value
from flowstream.protocol.amqp_sections import DATA, SEQUENCE, VALUE
from tests.protocol.amqp_strategies import bodies, sections, shape


@given(sections, bodies)
def test_a_message_is_read_as_it_was_written(given_sections, body):
    raw = p.encode_message(**body, **given_sections)
    message = p.AmqpMessage(raw)
    for name, expected in given_sections.items():
        assert getattr(message, name) == expected
    kind = {"data": DATA, "sequence": SEQUENCE, "value": VALUE}
    (name,) = body
    assert message.body_section == kind[name]
    assert shape(message.body) == shape(body[name])
    assert p.is_amqp(raw)
    assert p.AmqpMessage.of(**body, **given_sections).raw == raw
    if name == "data":
        assert p.data_of(raw) == body["data"] == p.data_of_all([raw])[0]


def test_only_what_is_asked_for_is_decoded():
    broken = b"\x00\x53\x72\xc1\x03\x02\xa3\x05" + b"\x00\x53\x75\xa0\x04body"
    message = p.AmqpMessage(broken)
    assert message.data == b"body"
    assert p.data_of(broken) == b"body"
    with pytest.raises(ProtocolError):
        _ = message.message_annotations


def test_several_data_or_sequence_sections_are_joined():
    raw = p.encode_data(b"one, ") + p.encode_data(b"two")
    assert p.data_of(raw) == p.AmqpMessage(raw).data == b"one, two"
    raw = p.encode_message(sequence=[1]) + p.encode_message(sequence=["a"])
    assert p.AmqpMessage(raw).sequence == [1, "a"]


def test_data_of_takes_text_values_and_bodies_that_are_not_amqp():
    assert p.data_of(p.encode_message(value="grün")) == "grün".encode()
    assert p.data_of(p.encode_message(value=b"bytes")) == b"bytes"
    plain = [b"", b"{}", b"\x00", b"\x00S", b"\x00Sz", b"Su\xa0"]
    assert p.data_of_all(plain) == [p.data_of(body) for body in plain] == plain
    assert not any(map(p.is_amqp, plain))
    for value in (1, None, ["x"]):
        with pytest.raises(ProtocolError):
            p.data_of(p.encode_message(value=value))


@given(sections, bodies, st.data())
def test_a_damaged_message_is_a_protocol_error_or_read(given_sections, body, data):
    raw = bytearray(p.encode_message(**body, **given_sections))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(ProtocolError):
        p.data_of(damaged)
    message = p.AmqpMessage(damaged)
    for name in ("body", *given_sections):
        with contextlib.suppress(ProtocolError):
            getattr(message, name)


def test_a_section_of_a_wrong_type_is_refused():
    for raw in (b"\x00Su\x40", b"\x00Ss\xc1\x01\x00", b"\x00St\x45", b"\x00Sp\x40"):
        message = p.AmqpMessage(raw)
        with pytest.raises(ProtocolError):
            _ = (message.data, message.properties, message.application_properties, message.header)
    with pytest.raises(ProtocolError):
        _ = p.AmqpMessage(b"\x00Ss" + encode_value([None] * 14)).properties


def test_two_bodies_are_refused():
    with pytest.raises(LocalProtocolError):
        p.encode_message(b"data", value=1)


def test_plain_annotation_keys_become_symbols():
    raw = p.encode_message(b"", message_annotations={"x-stream-filter-value": "a"})
    (key,) = p.AmqpMessage(raw).message_annotations or {}
    assert type(key) is p.Symbol
