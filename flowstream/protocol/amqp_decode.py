"""Bytes to AMQP 1.0 values.

Source: AMQP 1.0, part 1 (Types), "Type encodings". A value is a constructor byte and its data; the
high half of the byte is the width of the data (0x4_: 0, 0x5_: 1, 0x6_: 2, 0x7_: 4, 0x8_: 8,
0x9_: 16 bytes; 0xA_, 0xC_, 0xE_: a u8 size first; 0xB_, 0xD_, 0xF_: a u32 size first), so unknown
values can be skipped. 0x00 begins a descriptor and the described value.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any
from uuid import UUID

from flowstream.errors import ProtocolError
from flowstream.protocol.amqp_types import FIXED, Array, Char, Described, Symbol

MAX_DEPTH = 64
"""How deep lists, maps, arrays and descriptors may be nested."""

_U32 = Struct(">I")


def _boolean(value: int) -> bool:
    if value > 1:
        raise ProtocolError(f"an AMQP boolean is 0 or 1, not {value}")
    return value == 1


def _character(point: int) -> Char:
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        raise ProtocolError(f"{point:#x} is no character")
    return Char(chr(point))


def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


_CONSTANTS: dict[int, Any] = {
    0x40: None,
    0x41: True,
    0x42: False,
    **{code: kind(0) for kind, code, form in FIXED if not form},
}
_FIXED: dict[int, tuple[Struct, Callable[[Any], Any]]] = {
    0x56: (Struct("B"), _boolean),
    0x73: (_U32, _character),
    0x98: (Struct("16s"), _uuid),
    **{code: (Struct(">" + form), kind) for kind, code, form in FIXED if form},
}
_TEXT: dict[int, Callable[[bytes], Any]] = {
    0xA0: bytes,
    0xB0: bytes,
    0xA1: lambda data: str(data, "utf-8"),
    0xB1: lambda data: str(data, "utf-8"),
    0xA3: lambda data: Symbol(data, "ascii"),
    0xB3: lambda data: Symbol(data, "ascii"),
}
_WIDTHS = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_KINDS: dict[int, type[Any]] = {
    0x40: type(None),
    **dict.fromkeys((0x41, 0x42, 0x56), bool),
    **{code: kind for kind, code, _ in FIXED},
    0x73: Char,
    0x98: UUID,
    **dict.fromkeys((0xA0, 0xB0), bytes),
    **dict.fromkeys((0xA1, 0xB1), str),
    **dict.fromkeys((0xA3, 0xB3), Symbol),
    **dict.fromkeys((0x45, 0xC0, 0xD0), list),
    **dict.fromkeys((0xC1, 0xD1), dict),
    **dict.fromkeys((0xE0, 0xF0), Array),
}


def _size(data: bytes, position: int, wide: bool) -> tuple[int, int]:
    """A size of one or four bytes, and the position after it."""
    if wide:
        return _U32.unpack_from(data, position)[0], position + 4
    return data[position], position + 1


def _read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    """The value at `position` and the position after it; IndexError and the like at the end."""
    code = data[position]
    if code:
        return _read_as(code, data, position + 1, depth)
    if depth > MAX_DEPTH:
        raise ProtocolError(f"AMQP values nested more than {MAX_DEPTH} deep")
    descriptor, position = _read(data, position + 1, depth + 1)
    value, position = _read(data, position, depth + 1)
    return Described(descriptor, value), position


def _read_as(code: int, data: bytes, position: int, depth: int) -> tuple[Any, int]:
    """The data of a value whose constructor is `code`."""
    fixed = _FIXED.get(code)
    if fixed is not None:
        form, convert = fixed
        return convert(form.unpack_from(data, position)[0]), position + form.size
    text = _TEXT.get(code)
    if text is not None:
        size, position = _size(data, position, code >= 0xB0)
        end = position + size
        if end > len(data):
            raise ProtocolError("an AMQP value is cut off")
        return text(data[position:end]), end
    if code in _CONSTANTS:
        return _CONSTANTS[code], position
    if code == 0x45:
        return [], position
    read = _COMPOUND.get(code & 0xEF if code >= 0xC0 else 0)
    if read is None:
        raise ProtocolError(f"there is no AMQP type {code:#04x}")
    if depth > MAX_DEPTH:
        raise ProtocolError(f"AMQP values nested more than {MAX_DEPTH} deep")
    wide = bool(code & 0x10)
    size, position = _size(data, position, wide)
    end = position + size
    count, position = _size(data, position, wide)
    if end > len(data) or count > end - position:
        raise ProtocolError(f"an AMQP list, map or array of {count} items is cut off")
    value, position = read(data, position, count, depth + 1)
    if position != end:
        raise ProtocolError("an AMQP list, map or array does not have its announced size")
    return value, position


def _read_list(data: bytes, position: int, count: int, depth: int) -> tuple[Any, int]:
    items = []
    for _ in range(count):
        item, position = _read(data, position, depth)
        items.append(item)
    return items, position


def _read_map(data: bytes, position: int, count: int, depth: int) -> tuple[Any, int]:
    items, position = _read_list(data, position, count, depth)
    if count % 2:
        raise ProtocolError("an AMQP map has a key without a value")
    try:
        return dict(zip(items[::2], items[1::2], strict=True)), position
    except TypeError:
        raise ProtocolError("a list, map or array is the key of an AMQP map") from None


def _read_array(data: bytes, position: int, count: int, depth: int) -> tuple[Any, int]:
    """Read an array. Items without width are refused, because any count of them would fit."""
    descriptor = None
    code = data[position]
    position += 1
    if code == 0:
        descriptor, position = _read(data, position, depth)
        code = data[position]
        position += 1
    kind = _KINDS.get(code)
    if kind is None or count > len(data) - position:
        raise ProtocolError(f"an AMQP array of {count} items of the type {code:#04x}")
    items = []
    for _ in range(count):
        item, position = _read_as(code, data, position, depth)
        items.append(item)
    return Array(kind, items, descriptor), position


_COMPOUND = {0xC0: _read_list, 0xC1: _read_map, 0xE0: _read_array}


def read_value(data: bytes, position: int = 0) -> tuple[Any, int]:
    """The value at `position` and the position after it; ProtocolError if there is none."""
    try:
        return _read(data, position, 0)
    except (IndexError, struct_error):
        raise ProtocolError("an AMQP value is cut off") from None
    except UnicodeDecodeError:
        raise ProtocolError("an AMQP string is not UTF-8, or a symbol not ASCII") from None


def skip_value(data: bytes, position: int) -> int:
    """The position after the value at `position`, by its size alone."""
    pending = 1
    try:
        while pending:
            code = data[position]
            position += 1
            if code == 0:
                pending += 1  # a descriptor and a value instead of one value
                continue
            width = _WIDTHS.get(code >> 4)
            if width is None:
                if code < 0xA0:
                    raise ProtocolError(f"there is no AMQP type {code:#04x}")
                width, position = _size(data, position, bool(code & 0x10))
            position += width
            pending -= 1
    except (IndexError, struct_error):
        raise ProtocolError("an AMQP value is cut off") from None
    if position > len(data):
        raise ProtocolError("an AMQP value is cut off")
    return position
