"""AMQP 1.0 values for which Python has no type.

Source: AMQP 1.0, part 1 (Types). Python's own types represent: None null, bool boolean, int long
(ulong above 2**63), float double, bytes binary, str string, uuid.UUID uuid, list list, dict map.
Everything else has a class here, a subclass of the type that it behaves like, so that a decoded
value is encoded as the same type again.
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
    """A name from a registry, ASCII."""

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


class Fixed(NamedTuple):
    """One way to write the values of a type in a fixed width: constructor and `struct` form."""

    kind: type[Any]
    code: int
    form: str


FIXED = (
    Fixed(UByte, 0x50, "B"),
    Fixed(UShort, 0x60, "H"),
    Fixed(UInt, 0x70, "I"),
    Fixed(UInt, 0x52, "B"),
    Fixed(UInt, 0x43, ""),
    Fixed(ULong, 0x80, "Q"),
    Fixed(ULong, 0x53, "B"),
    Fixed(ULong, 0x44, ""),
    Fixed(Byte, 0x51, "b"),
    Fixed(Short, 0x61, "h"),
    Fixed(Int, 0x71, "i"),
    Fixed(Int, 0x54, "b"),
    Fixed(int, 0x81, "q"),
    Fixed(int, 0x55, "b"),
    Fixed(Timestamp, 0x83, "q"),
    Fixed(Float32, 0x72, "f"),
    Fixed(float, 0x82, "d"),
    Fixed(Decimal32, 0x74, "4s"),
    Fixed(Decimal64, 0x84, "8s"),
    Fixed(Decimal128, 0x94, "16s"),
)
"""Numbers, and what is kept as its bytes, are read and written by this table.

The first row of a type is the widest, which arrays have; a form of one byte is used for the values
that it holds, one of none for 0.
"""


class Described(NamedTuple):
    """A value with the descriptor (ULong or Symbol) of its meaning."""

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
