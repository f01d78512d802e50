"""Publish frames out, in bulk: the publisher's hot path.

Source: the protocol document, section "Publish", and the entry layout of section "Deliver". In
version 1 a message is `u64 publishing id` and an entry exactly as in a chunk: `0|len:31`
and the body, or `1|compression:3|0:4`, u16 records, u32 uncompressed size, u32 size and the data of
a sub-entry. Version 2 has `str filter value` (null: none) between the two, and simple entries only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from struct import Struct
from struct import error as struct_error

from flowstream.errors import LocalProtocolError
from flowstream.protocol.values import SUB_ENTRY, SubEntry

FRAME_OVERHEAD = 9
"""Bytes of a Publish frame before its messages: key, version, publisher id, count."""
ENTRY_OVERHEAD = 12
"""Bytes of a simple message besides its body: publishing id and length (version 2: + filter)."""
SUB_ENTRY_OVERHEAD = 19
"""Bytes of a sub-entry besides its data."""

_FRAME = Struct(">IHHBI")
_SIMPLE = Struct(">QI")
_ID = Struct(">Q")
_LENGTH = Struct(">I")
_FILTER = Struct(">h")


def encode_publish(publisher_id: int, first_id: int, bodies: Sequence[bytes]) -> bytes:
    """One Publish frame of simple entries with consecutive ids from `first_id`."""
    return encode_publish_ids(publisher_id, range(first_id, first_id + len(bodies)), bodies)


def encode_publish_ids(publisher_id: int, ids: Sequence[int], bodies: Sequence[bytes]) -> bytes:
    """One Publish frame of simple entries; `ids` and `bodies` go pairwise."""
    count = len(bodies)
    lengths = list(map(len, bodies))
    parts: list[bytes] = [b""] * (2 * count + 1)
    try:
        size = FRAME_OVERHEAD + ENTRY_OVERHEAD * count + sum(lengths)
        parts[0] = _FRAME.pack(size, 2, 1, publisher_id, count)
        parts[1::2] = map(_SIMPLE.pack, ids, lengths)
    except (struct_error, ValueError) as error:
        raise LocalProtocolError(f"cannot encode {count} messages: {error}") from None
    parts[2::2] = bodies
    return b"".join(parts)


def encode_publish_filtered(
    publisher_id: int,
    ids: Sequence[int],
    filters: Sequence[str | None],
    bodies: Sequence[bytes],
) -> bytes:
    """One Publish frame of version 2; a filter value of None marks an unfiltered message."""
    count = len(bodies)
    parts: list[bytes] = [b""] * (4 * count + 1)
    try:
        parts[1::4] = map(_ID.pack, ids)
        parts[2::4] = map(_filter_field, filters)
        parts[3::4] = map(_LENGTH.pack, map(len, bodies))
        parts[4::4] = bodies
        size = FRAME_OVERHEAD + sum(map(len, parts))
        parts[0] = _FRAME.pack(size, 2, 2, publisher_id, count)
    except (struct_error, ValueError) as error:
        raise LocalProtocolError(f"cannot encode {count} messages: {error}") from None
    return b"".join(parts)


@lru_cache(1024)
def _filter_field(value: str | None) -> bytes:
    """A filter value as in a frame. Streams have few of them, so they are cached."""
    text = b"" if value is None else value.encode()
    if len(text) > 32767:
        raise LocalProtocolError(f"a filter value of {len(text)} bytes; the most is 32767")
    return _FILTER.pack(-1 if value is None else len(text)) + text


def encode_sub_entries(publisher_id: int, batches: Sequence[SubEntry]) -> bytes:
    """One Publish frame of sub-entries (made by `sub_entry`)."""
    parts = [b""]
    try:
        for batch in batches:
            parts += (_ID.pack(batch.publishing_id), sub_entry_bytes(batch))
        size = FRAME_OVERHEAD + sum(map(len, parts))
        parts[0] = _FRAME.pack(size, 2, 1, publisher_id, len(batches))
    except struct_error as error:
        raise LocalProtocolError(f"cannot encode {len(batches)} batches: {error}") from None
    return b"".join(parts)


def sub_entry_bytes(batch: SubEntry) -> bytes:
    """The entry of a sub-entry, as in Publish frames and chunks."""
    head = SUB_ENTRY.pack(
        0x80 | batch.compression << 4, batch.records, batch.uncompressed_size, len(batch.data)
    )
    return head + batch.data


def split_at(lengths: Sequence[int], frame_max: int, overhead: int = ENTRY_OVERHEAD) -> list[int]:
    """Where to cut messages of these body lengths so that each frame fits `frame_max`.

    Returns the end index of every frame (the last is `len(lengths)`). `frame_max` 0 is no limit.
    A message that is too large alone gets its own frame, so refuse it before (`fits`).
    """
    count = len(lengths)
    room = frame_max - FRAME_OVERHEAD
    if not frame_max or overhead * count + sum(lengths) <= room:
        return [count] if count else []
    upto = list(accumulate(map(overhead.__add__, lengths)))
    ends: list[int] = []
    start = used = 0
    while start < count:
        start = max(start + 1, bisect_right(upto, used + room, start))
        used = upto[start - 1]
        ends.append(start)
    return ends


def fits(length: int, frame_max: int, overhead: int = ENTRY_OVERHEAD) -> bool:
    """Whether a message with a body of `length` bytes fits into a frame."""
    return not frame_max or FRAME_OVERHEAD + overhead + length <= frame_max
