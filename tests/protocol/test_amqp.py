"""AMQP 1.0 messages: every type and section both ways, lazily, and the short way for data."""

from __future__ import annotations

import contextlib
from struct import calcsize
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol.amqp_decode import MAX_DEPTH, read_value, skip_value
from flowstream.protocol.amqp_encode import encode_value
from flowstream.protocol.amqp_sections import DATA, SEQUENCE, VALUE
from flowstream.protocol.amqp_types import FIXED, Fixed
from tests.protocol.amqp_strategies import SCALARS, bodies, nested_arrays, sections, values


def shape(value: Any) -> Any:
    """A value with the exact type of everything in it, as 1 == True == 1.0 in Python."""
    if isinstance(value, p.Array):
        return p.Array, value.kind, shape(value.descriptor), [shape(item) for item in value.items]
    if isinstance(value, p.Described):
        return p.Described, shape(value.descriptor), shape(value.value)
    if isinstance(value, list | tuple):
        return list, [shape(item) for item in value]
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    return type(value), value


@given(values | nested_arrays)
def test_a_value_is_read_as_it_was_written(value: Any):
    data = encode_value(value)
    assert skip_value(data, 0) == len(data)
    again, end = read_value(data)
    assert end == len(data)
    assert shape(again) == shape(value)
    assert encode_value(again) == data


@given(values)
def test_a_value_is_found_between_others(value: Any):
    data = b"\x41" + encode_value(value) + b"\x42"
    assert skip_value(data, 1) == len(data) - 1
    assert shape(read_value(data, 1)) == shape((value, len(data) - 1))


SPECIFIED = [
    ("40", None),
    ("5601", True),
    ("5600", False),
    ("43", p.UInt(0)),
    ("52ff", p.UInt(255)),
    ("700000ffff", p.UInt(65535)),
    ("44", p.ULong(0)),
    ("5380", p.ULong(128)),
    ("54ff", p.Int(-1)),
    ("55ff", -1),
    ("81ffffffffffffffff", -1),
    ("7300000041", p.Char("A")),
    ("830000000000000001", p.Timestamp(1)),
    ("98" + "00" * 15 + "01", UUID(int=1)),
    ("b1 00000002 c3a4", "ä"),
    ("a3 01 61", p.Symbol("a")),
    ("45", []),
    ("c0 03 02 41 42", [True, False]),
    ("d0 00000006 00000002 41 42", [True, False]),
    ("c1 05 02 a10161 41", {"a": True}),
    ("e0 04 02 50 01 02", p.Array(p.UByte, [p.UByte(1), p.UByte(2)])),
    ("00 53 24 45", p.Described(p.ULong(0x24), [])),
    ("00 53 01 00 53 02 41", p.Described(p.ULong(1), p.Described(p.ULong(2), True))),
]


@pytest.mark.parametrize(("data", "value"), SPECIFIED)
def test_encodings_of_the_specification(data: str, value: Any):
    raw = bytes.fromhex(data)
    assert shape(read_value(raw)) == shape((value, len(raw)))


@given(st.binary(max_size=60))
def test_garbage_is_a_protocol_error_or_a_value(data: bytes):
    for read in (read_value, skip_value):
        with contextlib.suppress(ProtocolError):
            read(data, 0)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "3f",
        "ff",
        "5602",
        "73 00110000",
        "73 0000d800",
        "a1 01 ff",
        "a1 05 6772c3b6c3",
        "a3 01 c3",
        "a0 05 00",
        "c0 ff 01 40",
        "c0 02 09 40",
        "d0 00000008 7fffffff 40 40 40 40",
        "c0 04 01 40 40 40",
        "c1 03 01 40 40",
        "c1 04 02 a10161",
        "c1 04 02 45 40 40",
        "c1 03 02 45 40",
        "e0 02 ff 40",
        "f0 00000005 7fffffff 40",
        "e0 03 01 c5 00",
        "e0 01 00",
        "00",
        "0000",
    ],
)
def test_values_that_lie_are_refused(data: str):
    with pytest.raises(ProtocolError):
        read_value(bytes.fromhex(data))


def test_nesting_is_bounded():
    deep = b"\x45"
    for _ in range(MAX_DEPTH + 2):
        deep = b"\xd0" + (len(deep) + 4).to_bytes(4) + b"\0\0\0\1" + deep
    for data in (deep, bytes(100_000)):
        with pytest.raises(ProtocolError):
            read_value(data)
    assert skip_value(deep, 0) == len(deep)
    with pytest.raises(ProtocolError):
        skip_value(bytes(100_000), 0)


def test_a_number_beyond_long_is_an_unsigned_long():
    assert encode_value((1 << 64) - 1) == b"\x80" + b"\xff" * 8
    assert encode_value((1 << 63) - 1)[:1] == b"\x81"


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1 << 64,
        -(1 << 63) - 1,
        p.UByte(256),
        p.Byte(128),
        p.UInt(-1),
        p.Decimal32(b"123"),
        p.Symbol("é"),
        "\ud800",
        p.Char("ab"),
        p.Float32(1e300),
        p.Array(object, []),
        p.Array(p.UByte, [300]),
        [object()],
        {"a": object()},
    ],
)
def test_what_amqp_cannot_carry_is_refused(value: Any):
    with pytest.raises(LocalProtocolError):
        encode_value(value)


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


@given(st.lists(st.binary(max_size=600), max_size=10))
def test_the_short_ways_are_the_long_ones(data: list[bytes]):
    raws = p.encode_data_all(data)
    assert raws == [p.encode_data(body) for body in data]
    assert raws == [p.encode_message(body) for body in data]
    assert p.data_of_all(raws) == [p.data_of(raw) for raw in raws] == data
    assert [p.AmqpMessage(raw).data for raw in raws] == data


def slowly(raw: bytes) -> Any:
    """The payload as the general decoder finds it, or the text of its error."""
    if not p.is_amqp(raw):
        return raw
    try:
        body = p.AmqpMessage(raw).body
    except ProtocolError as error:
        return str(error)
    body = body.encode() if isinstance(body, str) else body
    return body if isinstance(body, bytes) else "the body of this AMQP message has no bytes"


def quickly(raws: list[bytes]) -> Any:
    try:
        return p.data_of_all(raws)
    except ProtocolError as error:
        return str(error)


def wide(raw: bytes) -> bytes:
    """A data section alone, with a size of four bytes."""
    return b"\x00Su\xb0" + len(raw).to_bytes(4) + raw


one_message = (
    st.builds(lambda given, body: p.encode_message(**body, **given), sections, bodies)
    | st.binary(max_size=300).map(p.encode_data)
    | st.binary(max_size=300).map(wide)
    | st.builds(lambda data: bytes(2048) + data, st.binary(max_size=9)).map(p.encode_data)
)
any_body = one_message | st.binary(max_size=20) | st.binary(max_size=9).map(b"\x00S".__add__)


@given(st.lists(any_body, max_size=6), st.lists(st.tuples(*[st.integers(0, 1 << 16)] * 3)))
def test_the_fast_way_is_the_slow_one(raws: list[bytes], damages: list[tuple[int, int, int]]):
    for which, place, byte in damages[: 2 if raws else 0]:
        damaged = bytearray(raws[which % len(raws)] or b"\x00")
        damaged[place % len(damaged)] = byte & 0xFF
        raws[which % len(raws)] = bytes(damaged)
    expected = list(map(slowly, raws))
    for raw, payload in zip(raws, expected, strict=True):
        if isinstance(payload, bytes):
            assert quickly([raw]) == [payload]
        else:
            assert quickly([raw]).startswith(payload)
    first = next((each for each in expected if not isinstance(each, bytes)), None)
    if first is None:
        assert quickly(raws) == expected
    else:
        assert quickly(raws).startswith(first)


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


@pytest.mark.parametrize(
    "descriptor", ["a3 10 616d71703a646174613a62696e617279", "80 0000000000000075", "53 75"]
)
def test_descriptors_may_be_symbols_and_wide(descriptor: str):
    raw = b"\x00" + bytes.fromhex(descriptor) + b"\xa0\x02hi"
    assert p.AmqpMessage(raw).data == b"hi"
    subject = p.encode_message(properties=p.Properties(subject="s")).removesuffix(b"\x00Sw\x40")
    assert p.data_of(subject + raw) == b"hi"


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


def test_every_type_is_in_the_strategies():
    variable = {bool, p.Char, UUID, bytes, str, p.Symbol}
    assert set(SCALARS) == variable | {row.kind for row in FIXED}


@pytest.mark.parametrize("row", FIXED, ids=lambda row: f"{row.kind.__name__}-{row.code:#x}")
def test_the_width_of_a_type_is_the_one_that_its_constructor_tells(row: Fixed):
    assert skip_value(bytes((row.code,)) + bytes(16), 0) == 1 + calcsize(">" + row.form)
