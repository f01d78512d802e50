"""AMQP 1.0 values to bytes and back, each with its exact type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from flowstream import protocol as p
from flowstream.errors import LocalProtocolError
from flowstream.protocol.amqp_decode import read_value, skip_value
from flowstream.protocol.amqp_encode import encode_value
from tests.protocol.amqp_strategies import nested_arrays, shape, values


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
