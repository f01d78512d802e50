"""AMQP 1.0 values to bytes, each in the shortest encoding that its type has.

Source: AMQP 1.0, part 1 (Types), "Type encodings".
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any
from uuid import UUID

from flowstream.errors import LocalProtocolError
from flowstream.protocol.amqp_types import (
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    Described,
    Float32,
    Int,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

_U32 = Struct(">I")
_SIZED = Struct(">BI")
_WIDE = Struct(">BII")


def _integer(wide: str, code: int, small: int = 0, zero: int = 0) -> Callable[[Any], bytes]:
    """An encoder that takes the narrowest of the forms that the type has."""
    form = Struct(">B" + wide)
    signed = wide.islower()
    low, high = (-128, 127) if signed else (0, 255)

    def encode(value: int) -> bytes:
        if zero and value == 0:
            return bytes((zero,))
        if small and low <= value <= high:
            return bytes((small, value & 0xFF))
        return form.pack(code, value)

    return encode


_LONG = _integer("q", 0x81, 0x55)


def _plain(value: int) -> bytes:
    return _ENCODERS[ULong](value) if value > 0x7FFF_FFFF_FFFF_FFFF else _LONG(value)


def encode_compound(narrow: int, parts: list[bytes], head: bytes = b"") -> bytes:
    """A list (0xC0), map (0xC1) or array (0xE0) of these encoded items; `head` goes before them."""
    data = head + b"".join(parts)
    if len(data) < 255 and len(parts) < 256:
        return bytes((narrow, len(data) + 1, len(parts))) + data
    return _WIDE.pack(narrow | 0x10, len(data) + 4, len(parts)) + data


def _list(items: list[Any]) -> bytes:
    return encode_compound(0xC0, list(map(encode_value, items))) if items else b"\x45"


def _map(pairs: dict[Any, Any]) -> bytes:
    return encode_compound(0xC1, [encode_value(part) for pair in pairs.items() for part in pair])


def _described(value: Described) -> bytes:
    return b"\x00" + encode_value(value.descriptor) + encode_value(value.value)


def _array(array: Array) -> bytes:
    """All items have the widest form of their type, whose constructor is written once."""
    form = _ITEM_FORMS.get(array.kind)
    if form is None:
        raise LocalProtocolError(f"an AMQP array cannot hold {array.kind.__name__}")
    code, widen = form
    head = bytes((code,))
    if array.descriptor is not None:
        head = b"\x00" + encode_value(array.descriptor) + head
    return encode_compound(0xE0, list(map(widen, array.items)), head)


def _binary(value: bytes) -> bytes:
    size = len(value)
    return (bytes((0xA0, size)) if size < 256 else _SIZED.pack(0xB0, size)) + value


def _text(narrow: int, encoding: str) -> Callable[[Any], bytes]:
    heads = [bytes((narrow, size)) for size in range(256)]
    pack = _SIZED.pack

    def encode(value: str) -> bytes:
        data = value.encode(encoding)
        size = len(data)
        return heads[size] + data if size < 256 else pack(narrow | 0x10, size) + data

    return encode


def _number(code: int, form: str) -> Callable[[Any], bytes]:
    pack = Struct(">B" + form).pack
    return lambda value: pack(code, value)


def _exactly(size: int, value: bytes) -> bytes:
    if len(value) != size:
        raise LocalProtocolError(f"{type(value).__name__} has {size} bytes, not {len(value)}")
    return value


_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    int: _plain,
    UByte: _integer("B", 0x50),
    UShort: _integer("H", 0x60),
    UInt: _integer("I", 0x70, 0x52, 0x43),
    ULong: _integer("Q", 0x80, 0x53, 0x44),
    Byte: _integer("b", 0x51),
    Short: _integer("h", 0x61),
    Int: _integer("i", 0x71, 0x54),
    Timestamp: _integer("q", 0x83),
    Float32: _number(0x72, "f"),
    float: _number(0x82, "d"),
    Char: lambda value: b"\x73" + _U32.pack(ord(value)),
    UUID: lambda value: b"\x98" + value.bytes,
    Decimal32: lambda value: b"\x74" + _exactly(4, value),
    Decimal64: lambda value: b"\x84" + _exactly(8, value),
    Decimal128: lambda value: b"\x94" + _exactly(16, value),
    bytes: _binary,
    str: _text(0xA1, "utf-8"),
    Symbol: _text(0xA3, "ascii"),
    list: _list,
    tuple: _list,
    dict: _map,
    Described: _described,
    Array: _array,
}


def _wide_form(code: int, form: str) -> tuple[int, Callable[[Any], bytes]]:
    return code, Struct(">" + form).pack


def _wide_text(code: int, encode: Callable[[Any], bytes]) -> tuple[int, Callable[[Any], bytes]]:
    def widen(value: Any) -> bytes:
        data = encode(value)
        return _U32.pack(len(data)) + data

    return code, widen


def _wide_compound(value: Any) -> bytes:
    """A list, map or array without its constructor, with sizes of four bytes."""
    data = encode_value(value)
    if data == b"\x45":
        return _U32.pack(4) + _U32.pack(0)
    if data[0] & 0x10:
        return data[1:]
    return _U32.pack(data[1] + 3) + _U32.pack(data[2]) + data[3:]


_ITEM_FORMS: dict[type[Any], tuple[int, Callable[[Any], bytes]]] = {
    bool: _wide_form(0x56, "B"),
    UByte: _wide_form(0x50, "B"),
    UShort: _wide_form(0x60, "H"),
    UInt: _wide_form(0x70, "I"),
    ULong: _wide_form(0x80, "Q"),
    Byte: _wide_form(0x51, "b"),
    Short: _wide_form(0x61, "h"),
    Int: _wide_form(0x71, "i"),
    int: _wide_form(0x81, "q"),
    Timestamp: _wide_form(0x83, "q"),
    Float32: _wide_form(0x72, "f"),
    float: _wide_form(0x82, "d"),
    Char: (0x73, lambda value: _U32.pack(ord(value))),
    UUID: (0x98, lambda value: value.bytes),
    Decimal32: (0x74, lambda value: _exactly(4, value)),
    Decimal64: (0x84, lambda value: _exactly(8, value)),
    Decimal128: (0x94, lambda value: _exactly(16, value)),
    bytes: _wide_text(0xB0, bytes),
    str: _wide_text(0xB1, lambda value: value.encode()),
    Symbol: _wide_text(0xB3, lambda value: value.encode("ascii")),
    list: (0xD0, _wide_compound),
    dict: (0xD1, _wide_compound),
    Array: (0xF0, _wide_compound),
}


def encode_value(value: Any) -> bytes:
    """The shortest encoding of a value; LocalProtocolError if it has none."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = next((_ENCODERS[kind] for kind in type(value).__mro__ if kind in _ENCODERS), None)
    if encoder is None:
        raise LocalProtocolError(f"AMQP 1.0 has no type for {type(value).__name__}")
    try:
        return encoder(value)
    except (struct_error, UnicodeEncodeError, TypeError, OverflowError) as error:
        raise LocalProtocolError(
            f"{value!r} does not fit the AMQP type {type(value).__name__}: {error}"
        ) from None
