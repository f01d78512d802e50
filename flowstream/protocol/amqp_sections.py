"""What makes a body an AMQP 1.0 message: it begins with the descriptor of a section.

Source: AMQP 1.0, part 3 (Messaging), "Message Format". A message is a row of sections, each a
described value: `0x00`, a descriptor, the value. The descriptor is a number (0x53 and a byte, or
0x80 and eight bytes) or a symbol (0xa3 or 0xb3, its size, and a name such as `amqp:data:binary`).

A body that begins with any of these is a message, and reading it raises ProtocolError if it is
damaged. Every other body is a plain one. `is_amqp` decides this for all of flowstream.
"""

from __future__ import annotations

from typing import Any

HEADER = 0x70
DELIVERY_ANNOTATIONS = 0x71
MESSAGE_ANNOTATIONS = 0x72
PROPERTIES = 0x73
APPLICATION_PROPERTIES = 0x74
DATA = 0x75
SEQUENCE = 0x76
VALUE = 0x77
FOOTER = 0x78

TYPES: dict[int, type[Any]] = {
    HEADER: list,
    DELIVERY_ANNOTATIONS: dict,
    MESSAGE_ANNOTATIONS: dict,
    PROPERTIES: list,
    APPLICATION_PROPERTIES: dict,
    DATA: bytes,
    SEQUENCE: list,
    VALUE: object,
    FOOTER: dict,
}
"""What the value of each section is."""

BEGINNINGS = (b"\x00\x53", b"\x00\x80", b"\x00\xa3", b"\x00\xb3")
"""The first two bytes of every AMQP message, and of few other bodies."""

_NAMES = {
    b"amqp:header:list": HEADER,
    b"amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
    b"amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
    b"amqp:properties:list": PROPERTIES,
    b"amqp:application-properties:map": APPLICATION_PROPERTIES,
    b"amqp:data:binary": DATA,
    b"amqp:amqp-sequence:list": SEQUENCE,
    b"amqp:amqp-value:*": VALUE,
    b"amqp:footer:map": FOOTER,
}
_LONGEST_NAME = max(map(len, _NAMES))
_DESCRIPTORS = frozenset(bytes((code,)) for code in TYPES)


def is_amqp(raw: bytes) -> bool:
    """Whether a body is an AMQP 1.0 message, sound or damaged."""
    if raw[:2] == b"\x00\x53":
        return raw[2:3] in _DESCRIPTORS
    return raw[:2] in BEGINNINGS and section_at(raw, 0)[0] != 0


def section_at(raw: bytes, position: int) -> tuple[int, int]:
    """The code of the section that begins at `position`, and where its value begins; code 0 where
    no section begins there."""
    form = raw[position : position + 2]
    code = 0
    if form == b"\x00\x53":
        start = position + 3
        code = int.from_bytes(raw[position + 2 : start])
    elif form == b"\x00\x80":
        start = position + 10
        code = int.from_bytes(raw[position + 2 : start])
    elif form in BEGINNINGS:
        name = position + (3 if form == b"\x00\xa3" else 6)
        start = name + int.from_bytes(raw[position + 2 : name])
        if start <= name + _LONGEST_NAME:
            code = _NAMES.get(raw[name:start], 0)
    else:
        return 0, position
    return (code if code in TYPES and start <= len(raw) else 0), start
