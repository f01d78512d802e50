"""Hypothesis strategies: AMQP 1.0 values of every type, and whole messages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from flowstream import protocol as p
from tests.protocol.strategies import i64, text, u8, u16, u32, u64


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


symbols = st.text(st.characters(codec="ascii"), max_size=10).map(p.Symbol)
characters = st.characters(codec="utf-8").map(p.Char)
numbers = st.floats(allow_nan=False)
numbers32 = st.floats(allow_nan=False, width=32).map(p.Float32)

SCALARS: dict[type[Any], st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    p.UByte: u8.map(p.UByte),
    p.UShort: u16.map(p.UShort),
    p.UInt: u32.map(p.UInt),
    p.ULong: u64.map(p.ULong),
    p.Byte: signed(8).map(p.Byte),
    p.Short: signed(16).map(p.Short),
    p.Int: signed(32).map(p.Int),
    int: i64,
    p.Float32: numbers32,
    float: numbers,
    p.Decimal32: st.binary(min_size=4, max_size=4).map(p.Decimal32),
    p.Decimal64: st.binary(min_size=8, max_size=8).map(p.Decimal64),
    p.Decimal128: st.binary(min_size=16, max_size=16).map(p.Decimal128),
    p.Char: characters,
    p.Timestamp: i64.map(p.Timestamp),
    UUID: st.uuids(),
    bytes: st.binary(max_size=300),
    str: text | st.text(st.characters(codec="utf-8"), min_size=250, max_size=260),
    p.Symbol: symbols,
}
scalars = st.one_of(st.none(), *SCALARS.values())
keys = text | symbols | u64.map(p.ULong)
"""Keys that stay apart in a dictionary, as 1, 1.0 and True would not."""


def arrays_of(
    kind: type[Any], items: st.SearchStrategy[Any], descriptors: st.SearchStrategy[Any]
) -> st.SearchStrategy[p.Array]:
    return st.builds(p.Array, st.just(kind), st.lists(items, max_size=4), descriptors)


arrays = st.one_of(*(arrays_of(kind, items, st.none()) for kind, items in SCALARS.items()))


def compounds(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A described value is not described again: proton 0.40 does not read what it writes then."""
    plain = inner.filter(lambda value: not isinstance(value, p.Described))
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(p.Described, symbols | u64.map(p.ULong), plain),
    )


values = st.recursive(scalars | arrays, compounds, max_leaves=10)
nested_arrays = st.one_of(
    arrays_of(list, st.lists(scalars, max_size=3), st.none()),
    arrays_of(dict, st.dictionaries(text, scalars, max_size=3), st.none()),
    arrays_of(p.Array, arrays, st.none()),
    arrays_of(p.UInt, u32.map(p.UInt), u64.map(p.ULong)),
)

maybe = st.none()
message_ids = maybe | u64.map(p.ULong) | st.uuids() | st.binary(max_size=10) | text
headers = st.builds(
    p.Header,
    durable=maybe | st.booleans(),
    priority=maybe | u8,
    ttl=maybe | u32,
    first_acquirer=maybe | st.booleans(),
    delivery_count=maybe | u32,
)
properties = st.builds(
    p.Properties,
    message_id=message_ids,
    user_id=maybe | st.binary(max_size=10),
    to=maybe | text,
    subject=maybe | text,
    reply_to=maybe | text,
    correlation_id=message_ids,
    content_type=maybe | symbols,
    content_encoding=maybe | symbols,
    absolute_expiry_time=maybe | i64,
    creation_time=maybe | i64,
    group_id=maybe | text,
    group_sequence=maybe | u32,
    reply_to_group_id=maybe | text,
)
some_annotations = maybe | st.dictionaries(symbols, values, max_size=3)
sections: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "header": maybe | headers,
        "delivery_annotations": some_annotations,
        "message_annotations": some_annotations,
        "properties": maybe | properties,
        "application_properties": maybe | st.dictionaries(text, scalars, max_size=4),
        "footer": some_annotations,
    }
)
bodies: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"data": st.binary(max_size=300)}),
    st.fixed_dictionaries({"sequence": st.lists(values, max_size=3)}),
    st.fixed_dictionaries({"value": values}),
)


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
