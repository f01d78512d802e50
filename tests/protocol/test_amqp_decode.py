"""AMQP 1.0 values from bytes: the encodings of the specification, damage, and depth."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import ProtocolError
from flowstream.protocol.amqp_decode import MAX_DEPTH, read_value, skip_value
from tests.protocol.amqp_strategies import shape

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
