"""The primitive types of the wire, as fields that a command is composed of.

Source: the protocol document, section "Types". Big endian; `str` is an int16 byte length and UTF-8,
`bytes` an int32 length and the bytes, a length of -1 means null; arrays are an int32 count and the
items. A reader raises ProtocolError for everything that does not fit, and for a count that the
remaining bytes cannot hold. A writer raises LocalProtocolError for a value that does not fit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol.values import (
    Address,
    CommandVersion,
    OffsetKind,
    OffsetSpec,
    StreamMetadata,
)

Out: TypeAlias = "list[bytes | memoryview]"
"""The parts that writers append; they are joined once per frame."""

MAX_STRING = 32767


class Reader:
    """A cursor over the bytes of one frame."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes | memoryview) -> None:
        self.data: bytes | memoryview = data
        self.position: int = 0
        self.end: int = len(data)

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self.end - self.position

    def take(self, size: int) -> bytes | memoryview:
        """The next `size` bytes, not copied where the frame is a memoryview."""
        start = self.position
        if size < 0 or size > self.end - start:
            raise ProtocolError(f"{size} bytes announced, {self.end - start} left in the frame")
        self.position = start + size
        return self.data[start : start + size]

    def number(self, form: struct.Struct) -> int:
        """One integer of this form."""
        if form.size > self.end - self.position:
            raise ProtocolError(f"the frame ends inside a number of {form.size} bytes")
        value: int = form.unpack_from(self.data, self.position)[0]
        self.position += form.size
        return value

    def count(self, item_size: int) -> int:
        """The count of an array whose items take at least `item_size` bytes."""
        count = self.number(I32)
        if count < 0 or count * item_size > self.end - self.position:
            raise ProtocolError(f"an array of {count} items cannot fit into the frame")
        return count


class Field(NamedTuple):
    """One kind of field: how it is written and read, and the fewest bytes it takes."""

    write: Callable[[Out, Any], None]
    read: Callable[[Reader], Any]
    size: int = 0


U8S, U16S, U32S, U64S = (struct.Struct(">" + code) for code in "BHIQ")
I16, I32, I64S = (struct.Struct(">" + code) for code in "hiq")


def _number(form: struct.Struct) -> Field:
    def write(out: Out, value: int) -> None:
        try:
            out.append(form.pack(value))
        except struct.error as error:
            raise LocalProtocolError(f"{value!r} does not fit its field: {error}") from None

    return Field(write, lambda reader: reader.number(form), form.size)


U8, U16, U32, U64, I64 = (_number(form) for form in (U8S, U16S, U32S, U64S, I64S))


def _write_bool(out: Out, value: bool) -> None:
    out.append(b"\x01" if value else b"\x00")


def _read_bool(reader: Reader) -> bool:
    value = reader.number(U8S)
    if value > 1:
        raise ProtocolError(f"a boolean is 0 or 1, not {value}")
    return value == 1


def write_string(out: Out, value: str) -> None:
    """A string that must be there; its length counts bytes, not characters."""
    try:
        data = value.encode()
    except (UnicodeEncodeError, AttributeError):
        raise LocalProtocolError(f"{value!r} cannot be written as UTF-8") from None
    if len(data) > MAX_STRING:
        raise LocalProtocolError(f"a string of {len(data)} bytes; the most is {MAX_STRING}")
    out.append(I16.pack(len(data)))
    out.append(data)


def read_string(reader: Reader) -> str:
    """A string that must be there."""
    try:
        return str(reader.take(reader.number(I16)), "utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("a string is not UTF-8") from None


def write_nullable_string(out: Out, value: str | None) -> None:
    """A string, or null as length -1."""
    if value is None:
        out.append(b"\xff\xff")
    else:
        write_string(out, value)


def read_nullable_string(reader: Reader) -> str | None:
    """A string, or None for length -1."""
    if reader.data[reader.position : reader.position + 2] == b"\xff\xff":
        reader.position += 2
        return None
    return read_string(reader)


def _write_reference(out: Out, value: str | None) -> None:
    write_string(out, value or "")


def _read_reference(reader: Reader) -> str | None:
    return read_nullable_string(reader) or None


def _write_bytes(out: Out, value: bytes | None) -> None:
    if value is None:
        out.append(b"\xff\xff\xff\xff")
    else:
        out.append(I32.pack(len(value)))
        out.append(value)


def _read_bytes(reader: Reader) -> bytes | None:
    size = reader.number(I32)
    return None if size == -1 else bytes(reader.take(size))


def _write_challenge(out: Out, value: bytes | None) -> None:
    if value is not None:
        out.append(U16S.pack(len(value)))
        out.append(value)


def _read_challenge(reader: Reader) -> bytes | None:
    """Absent, `str` (as servers send it) or `bytes` (as in the document), by the bytes left."""
    left = reader.remaining
    if not left:
        return None
    data = reader.take(left)
    for form in (U16S, I32):
        if left >= form.size and form.unpack_from(data)[0] == left - form.size:
            return bytes(data[form.size :])
    if data == b"\xff\xff\xff\xff":
        return None
    raise ProtocolError(f"a SASL challenge of {left} bytes does not have that length")


def array(item: Field) -> Field:
    """An int32 count and so many items, as a tuple."""

    def write(out: Out, values: tuple[Any, ...]) -> None:
        out.append(I32.pack(len(values)))
        for value in values:
            item.write(out, value)

    def read(reader: Reader) -> tuple[Any, ...]:
        return tuple(item.read(reader) for _ in range(reader.count(item.size)))

    return Field(write, read, 4)


def mapping(key: Field, value: Field) -> Field:
    """An array of pairs, as a dictionary; for a repeated key the last value counts."""

    def write(out: Out, pairs: Mapping[Any, Any]) -> None:
        out.append(I32.pack(len(pairs)))
        for name, item in pairs.items():
            key.write(out, name)
            value.write(out, item)

    def read(reader: Reader) -> dict[Any, Any]:
        count = reader.count(key.size + value.size)
        return {key.read(reader): value.read(reader) for _ in range(count)}

    return Field(write, read, 4)


def omitted_if_empty(field: Field) -> Field:
    """A mapping at the end of a frame that is left out when it is empty."""

    def write(out: Out, pairs: Mapping[Any, Any]) -> None:
        if pairs:
            field.write(out, pairs)

    def read(reader: Reader) -> Any:
        return field.read(reader) if reader.remaining else {}

    return Field(write, read)


def record(kind: Callable[..., Any], *fields: Field) -> Field:
    """A tuple of fields in a row, made by `kind`."""

    def write(out: Out, values: tuple[Any, ...]) -> None:
        for field, value in zip(fields, values, strict=True):
            field.write(out, value)

    def read(reader: Reader) -> Any:
        return kind(*[field.read(reader) for field in fields])

    return Field(write, read, sum(field.size for field in fields))


_OFFSET_VALUES = {OffsetKind.OFFSET: U64, OffsetKind.TIMESTAMP: I64}


def _write_offset(out: Out, offset: OffsetSpec) -> None:
    U16.write(out, offset.kind)
    value = _OFFSET_VALUES.get(offset.kind)
    if value is not None:
        value.write(out, offset.value)


def _read_offset(reader: Reader) -> OffsetSpec:
    number = reader.number(U16S)
    try:
        kind = OffsetKind(number)
    except ValueError:
        raise ProtocolError(f"there is no offset type {number}") from None
    value = _OFFSET_VALUES.get(kind)
    return OffsetSpec(kind, value.read(reader) if value is not None else 0)


def _read_last_offset(reader: Reader) -> OffsetSpec:
    offset = _read_offset(reader)
    if offset.kind not in _OFFSET_VALUES:
        reader.position = reader.end
    return offset


BOOL = Field(_write_bool, _read_bool, 1)
STRING = Field(write_string, read_string, 2)
REFERENCE = Field(_write_reference, _read_reference, 2)
"""A publisher's reference: None is written empty, because servers refuse null here."""
BYTES = Field(_write_bytes, _read_bytes, 4)
SASL_CHALLENGE = Field(_write_challenge, _read_challenge)
STRINGS = array(STRING)
MAP = mapping(STRING, STRING)
OPTIONAL_MAP = omitted_if_empty(MAP)
STATISTICS = mapping(STRING, I64)
OFFSET = Field(_write_offset, _read_offset, 2)
LAST_OFFSET = Field(_write_offset, _read_last_offset, 2)
"""An offset at the end of a frame: like servers, it ignores a value after a kind that has none."""
COMMAND_VERSIONS = array(record(CommandVersion, U16, U16, U16))
BROKERS = mapping(U16, record(Address, STRING, U32))
STREAMS_METADATA = array(record(StreamMetadata, STRING, U16, U16, array(U16)))
ERRORS = array(record(lambda *pair: pair, U64, U16))
