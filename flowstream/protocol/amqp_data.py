"""Messages whose body is one data section at their end, read and written in bulk: the hot path.

Source: AMQP 1.0, part 3 (Messaging), section 3.2.6. Nearly every message of a stream is of this
kind. `amqp` reads all others, and gives the same results for these, more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import eq
from struct import Struct
from struct import error as struct_error

from flowstream.protocol.amqp_sections import (
    APPLICATION_PROPERTIES,
    DATA,
    DELIVERY_ANNOTATIONS,
    HEADER,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
)

_SHORT = b"\x00Su\xa0"
_LONG = b"\x00Su\xb0"
_LONG_HEAD = Struct(">4sI").pack
_SHORT_HEADS = [_SHORT + bytes((size,)) for size in range(256)]
_HEADS = [
    *[b"12345"] * 5,  # longer than a message of this size, so that no message begins with it
    *_SHORT_HEADS,
    *[_LONG_HEAD(_LONG, size - 8) for size in range(261, 2048)],
]
"""By the size of a message: its first bytes if it is a data section and nothing else."""

_SECTION = Struct(">II").unpack_from
_SKIP_SHORT, _SKIP_LONG, _DATA_SHORT, _DATA_LONG = 1, 2, 3, 4


def _actions() -> dict[int, int]:
    """What to do with a section, by its first four bytes as a number."""
    lists, maps = (HEADER, PROPERTIES), (DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS)
    forms = dict.fromkeys(lists, 0xC0) | dict.fromkeys((*maps, APPLICATION_PROPERTIES), 0xC1)
    actions = {0x5300A0 | DATA << 8: _DATA_SHORT, 0x5300B0 | DATA << 8: _DATA_LONG}
    for code, form in forms.items():
        actions[0x530000 | code << 8 | form] = _SKIP_SHORT
        actions[0x530000 | code << 8 | form | 0x10] = _SKIP_LONG
    return actions


_ACTIONS = _actions()


def encode_data(body: bytes) -> bytes:
    """The message that has `body` as its data section, and nothing else."""
    size = len(body)
    return _SHORT_HEADS[size] + body if size < 256 else _LONG_HEAD(_LONG, size) + body


def encode_data_all(bodies: Sequence[bytes]) -> list[bytes]:
    """`encode_data` of each body."""
    heads = _SHORT_HEADS
    return [
        heads[len(body)] + body if len(body) < 256 else _LONG_HEAD(_LONG, len(body)) + body
        for body in bodies
    ]


def strip_heads(raws: list[bytes]) -> list[bytes] | None:
    """The data of messages that are a data section and nothing else; None if one is not."""
    if raws[0][:3] != b"\x00Su":
        return None
    sizes = list(map(len, raws))
    if max(sizes) >= len(_HEADS):
        return None
    bodies = list(map(bytes.removeprefix, raws, map(_HEADS.__getitem__, sizes)))
    return None if any(map(eq, sizes, map(len, bodies))) else bodies


def last_data(raws: list[bytes]) -> list[bytes | None]:
    """The data of each message that ends with a data section and has no other body, else None.

    The sections before it are skipped by their size.
    """
    found: list[bytes | None] = []
    append = found.append
    unpack = _SECTION
    action_of = _ACTIONS.get
    for raw in raws:
        position = 0
        try:
            while True:
                head, size = unpack(raw, position)
                action = action_of(head, 0)
                if action == _DATA_SHORT:
                    position += 5
                    append(raw[position:] if position + (size >> 24) == len(raw) else None)
                    break
                if action == _SKIP_SHORT:
                    position += 5 + (size >> 24)
                elif action == _SKIP_LONG:
                    position += 8 + size
                elif action == _DATA_LONG:
                    position += 8
                    append(raw[position:] if position + size == len(raw) else None)
                    break
                else:
                    append(None)
                    break
        except struct_error:
            append(None)
    return found
