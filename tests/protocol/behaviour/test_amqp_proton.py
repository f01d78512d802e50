"""AMQP 1.0 against python-qpid-proton: what either writes, the other reads the same.

proton is built from source (dependency group `oracle`); without it these tests are skipped.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.protocol.amqp_decode import read_value
from flowstream.protocol.amqp_encode import encode_value
from flowstream.protocol.amqp_sections import DATA, SEQUENCE, VALUE
from tests.protocol.amqp_strategies import nested_arrays, sections, shape, values

proton = pytest.importorskip("proton")

WRAPPERS: dict[type[Any], Any] = {
    p.UByte: proton.ubyte,
    p.UShort: proton.ushort,
    p.UInt: proton.uint,
    p.ULong: proton.ulong,
    p.Byte: proton.byte,
    p.Short: proton.short,
    p.Int: proton.int32,
    p.Timestamp: proton.timestamp,
    p.Float32: proton.float32,
    p.Char: proton.char,
    p.Symbol: proton.symbol,
    p.Decimal128: proton.decimal128,
    p.Decimal32: lambda value: proton.decimal32(int.from_bytes(value)),
    p.Decimal64: lambda value: proton.decimal64(int.from_bytes(value)),
}
UNWRAPPERS: dict[type[Any], Any] = {
    **{theirs: ours for ours, theirs in WRAPPERS.items() if isinstance(theirs, type)},
    proton.decimal32: lambda value: p.Decimal32(int(value).to_bytes(4)),
    proton.decimal64: lambda value: p.Decimal64(int(value).to_bytes(8)),
    memoryview: bytes,
}
CODES: dict[type[Any], int] = {
    bool: proton.Data.BOOL,
    p.UByte: proton.Data.UBYTE,
    p.UShort: proton.Data.USHORT,
    p.UInt: proton.Data.UINT,
    p.ULong: proton.Data.ULONG,
    p.Byte: proton.Data.BYTE,
    p.Short: proton.Data.SHORT,
    p.Int: proton.Data.INT,
    int: proton.Data.LONG,
    p.Timestamp: proton.Data.TIMESTAMP,
    p.Float32: proton.Data.FLOAT,
    float: proton.Data.DOUBLE,
    p.Decimal32: proton.Data.DECIMAL32,
    p.Decimal64: proton.Data.DECIMAL64,
    p.Decimal128: proton.Data.DECIMAL128,
    p.Char: proton.Data.CHAR,
    UUID: proton.Data.UUID,
    bytes: proton.Data.BINARY,
    str: proton.Data.STRING,
    p.Symbol: proton.Data.SYMBOL,
    list: proton.Data.LIST,
    dict: proton.Data.MAP,
    p.Array: proton.Data.ARRAY,
}
KINDS = {code: kind for kind, code in CODES.items()}


def to_proton(value: Any) -> Any:
    if isinstance(value, p.Array):
        described = value.descriptor is not None
        descriptor = to_proton(value.descriptor) if described else proton.UNDESCRIBED
        return proton.Array(descriptor, CODES[value.kind], *map(to_proton, value.items))
    if isinstance(value, p.Described):
        return proton.Described(to_proton(value.descriptor), to_proton(value.value))
    if isinstance(value, list):
        return [to_proton(item) for item in value]
    if isinstance(value, dict):
        return {to_proton(key): to_proton(item) for key, item in value.items()}
    return WRAPPERS.get(type(value), lambda same: same)(value)


def from_proton(value: Any) -> Any:
    if isinstance(value, proton.Array):
        described = value.descriptor is not proton.UNDESCRIBED
        descriptor = from_proton(value.descriptor) if described else None
        items = [from_proton(item) for item in value.elements]
        return p.Array(KINDS[value.type], items, descriptor)
    if isinstance(value, proton.Described):
        return p.Described(from_proton(value.descriptor), from_proton(value.value))
    if isinstance(value, list):
        return [from_proton(item) for item in value]
    if isinstance(value, dict):
        return {from_proton(key): from_proton(item) for key, item in value.items()}
    return UNWRAPPERS.get(type(value), lambda same: same)(value)


def proton_encode(value: Any) -> bytes:
    data = proton.Data()
    data.put_object(to_proton(value))
    return bytes(data.encode())


def proton_decode(raw: bytes) -> Any:
    data = proton.Data()
    assert data.decode(raw) == len(raw)
    data.rewind()
    assert data.next() is not None
    return from_proton(data.get_object())


@given(values | nested_arrays)
def test_proton_reads_what_we_write(value: Any):
    assert shape(proton_decode(encode_value(value))) == shape(value)


@given(values | nested_arrays)
def test_we_read_what_proton_writes(value: Any):
    raw = proton_encode(value)
    assert shape(read_value(raw)) == shape((value, len(raw)))


body_values = values.filter(lambda value: not isinstance(value, p.Described))
bodies = st.one_of(
    st.tuples(st.just(DATA), st.binary(max_size=300)),
    st.tuples(st.just(SEQUENCE), st.lists(values, max_size=3)),
    st.tuples(st.just(VALUE), body_values),
)


def without_nul(given_sections: dict[str, Any]) -> dict[str, Any]:
    """proton keeps the strings of properties as C strings, which end at a NUL."""
    known = given_sections["properties"]
    if known is None:
        return given_sections
    texts = {
        field.name: type(text)(text.replace("\0", "0"))
        for field in fields(known)
        if isinstance(text := getattr(known, field.name), str)
    }
    return {**given_sections, "properties": replace(known, **texts)}


proton_sections = sections.map(without_nul)


def check_fields(theirs: Any, ours: p.AmqpMessage) -> None:
    """proton gives defaults where a message says nothing."""
    header = ours.header or p.Header()
    assert theirs.durable == bool(header.durable)
    assert theirs.priority == (4 if header.priority is None else header.priority)
    assert round(theirs.ttl * 1000) == (header.ttl or 0)
    assert theirs.first_acquirer == bool(header.first_acquirer)
    assert theirs.delivery_count == (header.delivery_count or 0)
    known = ours.properties or p.Properties()
    assert from_proton(theirs.id) == known.message_id
    assert from_proton(theirs.correlation_id) == known.correlation_id
    assert bytes(theirs.user_id) == (known.user_id or b"")
    assert theirs.address == known.to
    assert theirs.subject == known.subject
    assert theirs.reply_to == known.reply_to
    if known.content_type is not None:
        assert theirs.content_type == known.content_type
    if known.content_encoding is not None:
        assert theirs.content_encoding == known.content_encoding
    assert math.isclose(theirs.expiry_time * 1000, known.absolute_expiry_time or 0)
    assert math.isclose(theirs.creation_time * 1000, known.creation_time or 0)
    assert theirs.group_id == known.group_id
    assert theirs.group_sequence == (known.group_sequence or 0)
    assert theirs.reply_to_group_id == known.reply_to_group_id
    assert (from_proton(theirs.instructions) or None) == (ours.delivery_annotations or None)
    assert (from_proton(theirs.annotations) or None) == (ours.message_annotations or None)
    assert (from_proton(theirs.properties) or None) == (ours.application_properties or None)


@given(proton_sections, bodies)
def test_proton_reads_our_messages(given_sections: dict[str, Any], body: tuple[int, Any]):
    section, content = body
    given_sections = {**given_sections, "footer": None}
    name = {DATA: "data", SEQUENCE: "sequence", VALUE: "value"}[section]
    raw = p.encode_message(**{name: content}, **given_sections)
    theirs = proton.Message()
    theirs.decode(raw)
    check_fields(theirs, p.AmqpMessage(raw))
    assert shape(from_proton(theirs.body)) == shape(content)


@given(proton_sections, bodies, st.booleans())
def test_we_read_protons_messages(given_sections, body: tuple[int, Any], durable: bool):
    section, content = body
    assume(content is not None)  # proton writes no body then
    theirs = proton.Message(
        body=to_proton(content),
        inferred=section != VALUE,
        durable=durable,
        priority=7,
        ttl=12.5,
        delivery_count=3,
        expiry_time=1.5,
        creation_time=2.25,
        group_sequence=9,
    )
    known = given_sections["properties"] or p.Properties()
    assume(known.user_id is None or known.user_id)
    theirs.id = to_proton(known.message_id)
    theirs.correlation_id = to_proton(known.correlation_id)
    theirs.user_id = known.user_id or b""
    theirs.address, theirs.subject, theirs.reply_to = known.to, known.subject, known.reply_to
    if known.content_type is not None:
        theirs.content_type = known.content_type
    if known.content_encoding is not None:
        theirs.content_encoding = known.content_encoding
    theirs.group_id, theirs.reply_to_group_id = known.group_id, known.reply_to_group_id
    for name, ours in (
        ("instructions", "delivery_annotations"),
        ("annotations", "message_annotations"),
        ("properties", "application_properties"),
    ):
        setattr(theirs, name, to_proton(given_sections[ours]) or None)
    message = p.AmqpMessage(bytes(theirs.encode()))
    check_fields(theirs, message)
    assert message.body_section == section
    assert shape(message.body) == shape(content)
    if section == DATA:
        assert p.data_of(message.raw) == content
