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
from flowstream.protocol.amqp_types import FIXED, Array, Char, Described, Fixed, Symbol, ULong

_WIDEST: dict[type[Any], Fixed] = {row.kind: row for row in reversed(FIXED)}
_U32 = Struct(">I")
_SIZED = Struct(">BI")
_WIDE = Struct(">BII")


def _integer(kind: type[Any]) -> Callable[[Any], bytes]:
    """An encoder that takes the narrowest of the forms that the type has."""
    codes = {form: code for each, code, form in FIXED if each is kind}
    wide, code = next(iter(codes.items()))
    form = Struct(">B" + wide)
    low, high = (-128, 127) if wide.islower() else (0, 255)
    small, zero = codes.get("b" if wide.islower() else "B", 0), codes.get("", 0)

    def encode(value: int) -> bytes:
        if zero and value == 0:
            return bytes((zero,))
        if small and low <= value <= high:
            return bytes((small, value & 0xFF))
        return form.pack(code, value)

    return encode


_LONG = _integer(int)


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


def _float(kind: type[Any]) -> Callable[[Any], bytes]:
    code, pack = _WIDEST[kind].code, Struct(">B" + _WIDEST[kind].form).pack
    return lambda value: pack(code, value)


def _opaque(kind: type[Any]) -> Callable[[Any], bytes]:
    head, widen = bytes((_WIDEST[kind].code,)), _widener(kind)
    return lambda value: head + widen(value)


def _widener(kind: type[Any]) -> Callable[[Any], bytes]:
    """An encoder of the widest form, without its constructor; `struct` would pad and cut bytes."""
    form = Struct(">" + _WIDEST[kind].form)
    if not issubclass(kind, bytes):
        return form.pack

    def exactly(value: bytes) -> bytes:
        if len(value) != form.size:
            raise LocalProtocolError(
                f"{type(value).__name__} has {form.size} bytes, not {len(value)}"
            )
        return value

    return exactly


def _fixed(kind: type[Any]) -> Callable[[Any], bytes]:
    make = _float if issubclass(kind, float) else _opaque if issubclass(kind, bytes) else _integer
    return make(kind)


_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    **{kind: _fixed(kind) for kind in _WIDEST},
    int: _plain,
    Char: lambda value: b"\x73" + _U32.pack(ord(value)),
    UUID: lambda value: b"\x98" + value.bytes,
    bytes: _binary,
    str: _text(0xA1, "utf-8"),
    Symbol: _text(0xA3, "ascii"),
    list: _list,
    tuple: _list,
    dict: _map,
    Described: _described,
    Array: _array,
}


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
    **{kind: (row.code, _widener(kind)) for kind, row in _WIDEST.items()},
    bool: (0x56, Struct("B").pack),
    Char: (0x73, lambda value: _U32.pack(ord(value))),
    UUID: (0x98, lambda value: value.bytes),
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
