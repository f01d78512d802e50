"""The bulk paths for messages of one data section give what the general decoder gives."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowstream import protocol as p
from flowstream.errors import ProtocolError
from tests.protocol.amqp_strategies import bodies, sections


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
