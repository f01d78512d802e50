"""AMQP 1.0 values where Python has no type of its own.

Source: AMQP 1.0, part 1 (Types). Python's own types stand for: None null, bool boolean, int long
(ulong above 2**63), float double, bytes binary, str string, uuid.UUID uuid, list list, dict map.
Everything else has a class here, a subclass of what it behaves like, so that what was decoded is
encoded as the same type again.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class UByte(int):
    """An integer of 8 bits, unsigned."""

    __slots__ = ()


class UShort(int):
    """An integer of 16 bits, unsigned."""

    __slots__ = ()


class UInt(int):
    """An integer of 32 bits, unsigned."""

    __slots__ = ()


class ULong(int):
    """An integer of 64 bits, unsigned."""

    __slots__ = ()


class Byte(int):
    """An integer of 8 bits, signed."""

    __slots__ = ()


class Short(int):
    """An integer of 16 bits, signed."""

    __slots__ = ()


class Int(int):
    """An integer of 32 bits, signed."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since 1970, UTC."""

    __slots__ = ()


class Float32(float):
    """A number of 32 bits, IEEE 754."""

    __slots__ = ()


class Char(str):
    """One Unicode character."""

    __slots__ = ()


class Symbol(str):
    """A name from some registry, ASCII."""

    __slots__ = ()


class Decimal32(bytes):
    """The 4 bytes of an IEEE 754 decimal; opaque here."""

    __slots__ = ()


class Decimal64(bytes):
    """The 8 bytes of an IEEE 754 decimal; opaque here."""

    __slots__ = ()


class Decimal128(bytes):
    """The 16 bytes of an IEEE 754 decimal; opaque here."""

    __slots__ = ()


class Described(NamedTuple):
    """A value and the descriptor (ULong or Symbol) that tells what it is."""

    descriptor: Any
    value: Any


class Array(NamedTuple):
    """Values of one type: `kind` is that of this file, or Python's class, of all `items`."""

    kind: type[Any]
    items: list[Any]
    descriptor: Any = None


def plain_value(value: Any) -> Any:
    """The value with Python's own types only: what is described without its descriptor, arrays as
    lists, symbols as str, timestamps as int (milliseconds), decimals as their bytes."""
    if isinstance(value, Described):
        return plain_value(value.value)
    if isinstance(value, Array):
        return [plain_value(item) for item in value.items]
    if isinstance(value, dict):
        return {plain_value(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    own: Any
    for own in (int, float, str, bytes):
        if isinstance(value, own) and type(value) not in (own, bool):
            return own(value)
    return value
