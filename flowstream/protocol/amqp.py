"""AMQP 1.0 messages: the convention for what a stream's bodies hold, read section by section.

Source: AMQP 1.0, part 3 (Messaging), "Message Format". What is a message, and where its sections
begin, is amqp_sections.py's. Messages of one data section are read and written by amqp_data.py;
everything else is decoded here when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter, methodcaller
from typing import Any, TypeVar
from uuid import UUID

from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol.amqp_data import encode_data, last_data, strip_heads
from flowstream.protocol.amqp_decode import read_value, skip_value
from flowstream.protocol.amqp_encode import encode_compound, encode_value
from flowstream.protocol.amqp_sections import (
    APPLICATION_PROPERTIES,
    BEGINNINGS,
    DATA,
    DELIVERY_ANNOTATIONS,
    FOOTER,
    HEADER,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    SEQUENCE,
    TYPES,
    VALUE,
    is_amqp,
    section_at,
)
from flowstream.protocol.amqp_types import Symbol, Timestamp, UByte, UInt, ULong

_begins_like_amqp = methodcaller("startswith", BEGINNINGS)


@dataclass(frozen=True, slots=True)
class Header:
    """Section 3.2.1; None for an absent field. `ttl` is in milliseconds."""

    durable: bool | None = None
    priority: int | None = None
    ttl: int | None = None
    first_acquirer: bool | None = None
    delivery_count: int | None = None


@dataclass(frozen=True, slots=True)
class Properties:
    """Section 3.2.4; None for an absent field. Times are milliseconds since 1970."""

    message_id: int | UUID | bytes | str | None = None
    user_id: bytes | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    correlation_id: int | UUID | bytes | str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None
    creation_time: int | None = None
    group_id: str | None = None
    group_sequence: int | None = None
    reply_to_group_id: str | None = None


_FIELD_TYPES: dict[str, type[Any]] = {
    "priority": UByte,
    "ttl": UInt,
    "delivery_count": UInt,
    "message_id": ULong,
    "correlation_id": ULong,
    "content_type": Symbol,
    "content_encoding": Symbol,
    "absolute_expiry_time": Timestamp,
    "creation_time": Timestamp,
    "group_sequence": UInt,
}
"""Fields whose AMQP type is narrower than what Python's type would be encoded as; of the ids only
those that are numbers."""


def _getter(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], list[type[Any] | None]]:
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), [_FIELD_TYPES.get(name) for name in names]


_FIELDS = {HEADER: _getter(Header), PROPERTIES: _getter(Properties)}
"""How the values of a section's fields are found, and the AMQP type of each."""
_SECTION_STARTS = {code: b"\x00S" + bytes((code,)) for code in TYPES}

_Fields = TypeVar("_Fields", Header, Properties)


def data_of(raw: bytes) -> bytes:
    """The payload's bytes: an AMQP message's data, or the body itself if it is not AMQP.

    Several data sections are joined; a value section with a binary or a string gives its bytes.
    Raises ProtocolError on a message that is damaged or has no such payload: see `payload_of`.
    """
    payload = payload_of(raw)
    if type(payload) is not bytes:
        raise ProtocolError(
            f"the body of this AMQP message has no bytes: it is a value ({type(payload).__name__})"
        )
    return payload


def payload_of(raw: bytes) -> Any:
    """The payload of a body: bytes as `data_of` gives them, or the value that AMQP has instead.

    A value is what `AmqpMessage.body` is: a map is a dict, sequence sections are joined into one
    list, and so on; None means null, or a message without a body. Raises ProtocolError
    on a message that is damaged.
    """
    (data,) = last_data([raw])
    if data is not None:
        return data
    if not is_amqp(raw):
        return raw
    body = AmqpMessage(raw).body
    return body.encode() if isinstance(body, str) else body


def data_of_all(raws: list[bytes]) -> list[bytes]:
    """`data_of` of each body; the given list itself if no body is an AMQP message."""
    if not raws or min(raws) >= b"\x01" or not any(map(_begins_like_amqp, raws)):
        return raws
    stripped = strip_heads(raws)
    if stripped is not None:
        return stripped
    found = last_data(raws)
    return [data_of(raw) if data is None else data for raw, data in zip(raws, found, strict=True)]


class AmqpMessage:
    """An AMQP 1.0 message over its bytes (`raw`); a section is decoded when it is asked for.

    Absent sections are None. The body is one of `data` (several sections joined), `sequence`
    (several joined) and `value`; `body_section` is its code (0: no body), because a value may be
    null. `AmqpMessage.of` makes one from its sections. Every access may raise ProtocolError,
    because the bytes are not checked before.
    """

    __slots__ = ("_decoded", "_index", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw: bytes = raw
        self._index: dict[int, list[int]] | None = None
        self._decoded: dict[int, list[Any]] | None = None

    @classmethod
    def of(cls, data: bytes | None = None, **sections: Any) -> AmqpMessage:
        """A message of these sections; the arguments are those of `encode_message`."""
        if sections or data is None:
            return cls(encode_message(data, **sections))
        return cls(encode_data(data))

    @property
    def header(self) -> Header | None:
        """Durability, priority and the like."""
        return self._fields(HEADER, Header)

    @property
    def delivery_annotations(self) -> dict[Any, Any] | None:
        """For the next hop."""
        return self._map(DELIVERY_ANNOTATIONS)

    @property
    def message_annotations(self) -> dict[Any, Any] | None:
        """For brokers, such as `x-stream-filter-value`."""
        return self._map(MESSAGE_ANNOTATIONS)

    @property
    def properties(self) -> Properties | None:
        """The standard properties."""
        return self._fields(PROPERTIES, Properties)

    @property
    def application_properties(self) -> dict[str, Any] | None:
        """The application's own properties ("headers")."""
        return self._map(APPLICATION_PROPERTIES)

    @property
    def data(self) -> bytes | None:
        """The bytes of all data sections."""
        parts = self._all(DATA)
        return b"".join(parts) if parts else None

    @property
    def sequence(self) -> list[Any] | None:
        """The items of all sequence sections."""
        parts = self._all(SEQUENCE)
        return [item for part in parts for item in part] if parts else None

    @property
    def value(self) -> Any:
        """The value section; None if it is null or absent."""
        return self._one(VALUE)

    @property
    def footer(self) -> dict[Any, Any] | None:
        """The section after the body."""
        return self._map(FOOTER)

    @property
    def body_section(self) -> int:
        """DATA, SEQUENCE or VALUE: what the body is; 0 for no body."""
        index = self._sections()
        return next((code for code in (DATA, SEQUENCE, VALUE) if code in index), 0)

    @property
    def body(self) -> Any:
        """The body, whichever of the three it is; None for no body, as for a value of null."""
        index = self._sections()
        data, sequence, values = DATA in index, SEQUENCE in index, len(index.get(VALUE, ()))
        if data + sequence + values > 1:
            raise ProtocolError("an AMQP message has more than one body")
        if values:
            return self.value
        return self.data if data else self.sequence

    def __repr__(self) -> str:
        return f"AmqpMessage({self.raw[:40]!r}{'...' if len(self.raw) > 40 else ''})"

    def _sections(self) -> dict[int, list[int]]:
        """Where the value of every section begins; made once, skipping by size."""
        if self._index is None:
            index: dict[int, list[int]] = {}
            position = 0
            while position < len(self.raw):
                code, start = section_at(self.raw, position)
                if not code:
                    raise ProtocolError(f"at byte {position} of an AMQP message no section begins")
                index.setdefault(code, []).append(start)
                position = skip_value(self.raw, start)
            self._index = index
        return self._index

    def _all(self, code: int) -> list[Any]:
        if self._decoded is None:
            self._decoded = {}
        found: list[Any] | None = self._decoded.get(code)
        if found is None:
            found = [read_value(self.raw, start)[0] for start in self._sections().get(code, ())]
            if not all(isinstance(value, TYPES[code]) for value in found):
                raise ProtocolError(f"the AMQP section {code:#04x} has a value of a wrong type")
            self._decoded[code] = found
        return found

    def _map(self, code: int) -> dict[Any, Any] | None:
        found = self._all(code)
        return dict(found[0]) if found else None

    def _one(self, code: int) -> Any:
        found = self._all(code)
        return found[0] if found else None

    def _fields(self, code: int, kind: type[_Fields]) -> _Fields | None:
        values = self._one(code)
        if values is None:
            return None
        if len(values) > len(fields(kind)):
            raise ProtocolError(f"{len(values)} fields in an AMQP {kind.__name__.lower()}")
        return kind(*values)


def encode_message(
    data: bytes | None = None,
    *,
    sequence: Sequence[Any] | None = None,
    value: Any = None,
    header: Header | None = None,
    delivery_annotations: Mapping[Any, Any] | None = None,
    message_annotations: Mapping[Any, Any] | None = None,
    properties: Properties | None = None,
    application_properties: Mapping[str, Any] | None = None,
    footer: Mapping[Any, Any] | None = None,
) -> bytes:
    """The bytes of a message. Without `data` and `sequence` its body is `value`, which may be null.

    Annotation keys that are plain strings become symbols, as the standard demands. Raises
    LocalProtocolError for values that AMQP 1.0 has no type for, and for more than one body.
    """
    if (data is not None) + (sequence is not None) + (value is not None) > 1:
        raise LocalProtocolError("an AMQP message has one body: data, sequence or value")
    if sequence is not None:
        body = _section(SEQUENCE, encode_value(list(sequence)))
    else:
        body = _section(VALUE, encode_value(value)) if data is None else encode_data(data)
    parts: list[bytes] = []
    if header is not None:
        parts.append(_fields_section(HEADER, header))
    if delivery_annotations is not None:
        parts.append(_map_section(DELIVERY_ANNOTATIONS, delivery_annotations, symbols=True))
    if message_annotations is not None:
        parts.append(_map_section(MESSAGE_ANNOTATIONS, message_annotations, symbols=True))
    if properties is not None:
        parts.append(_fields_section(PROPERTIES, properties))
    if application_properties is not None:
        parts.append(_map_section(APPLICATION_PROPERTIES, application_properties))
    parts.append(body)
    if footer is not None:
        parts.append(_map_section(FOOTER, footer, symbols=True))
    return b"".join(parts)


def _section(code: int, value: bytes) -> bytes:
    return _SECTION_STARTS[code] + value


def _map_section(code: int, pairs: Mapping[Any, Any], *, symbols: bool = False) -> bytes:
    parts: list[bytes] = []
    for key, item in pairs.items():
        if type(key) is str:
            parts.append(_key(key, symbols) if len(key) < 64 else _key.__wrapped__(key, symbols))
        else:
            parts.append(encode_value(key))
        parts.append(encode_value(item))
    return _section(code, encode_compound(0xC1, parts))


@lru_cache(256)
def _key(name: str, symbol: bool) -> bytes:
    """A key of a map; the messages of a stream share a few names."""
    return encode_value(Symbol(name) if symbol else name)


def _fields_section(code: int, record: Header | Properties) -> bytes:
    """A list of the fields, without the absent ones at its end."""
    values_of, kinds = _FIELDS[code]
    values = values_of(record)
    count = len(values)
    while count and values[count - 1] is None:
        count -= 1
    parts: list[bytes] = []
    for value, kind in zip(values[:count], kinds, strict=False):
        if value is None:
            parts.append(b"\x40")
        elif kind is None or (kind is ULong and type(value) is not int):
            parts.append(encode_value(value))
        else:
            parts.append(encode_value(kind(value)))
    return _section(code, encode_compound(0xC0, parts) if parts else b"\x45")
