"""Entries of the unconfirmed log as Publish frames, and the bytes they take there. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from flowstream.protocol import (
    encode_publish,
    encode_publish_filtered,
    encode_publish_ids,
    encode_sub_entries,
    split_at,
)

from .unconfirmed import Entry

FRAME_OVERHEAD = 9
"""Bytes of a Publish frame before its messages."""
OVERHEAD = 12
"""Bytes of a message besides its body."""
FILTER_OVERHEAD = 14
"""Bytes of a message of version 2 besides its body and its filter value."""
SUB_ENTRY_OVERHEAD = 19
"""Bytes of a sub-entry besides its data."""


def weights(entry: Entry, positions: Iterable[int]) -> list[int]:
    """The bytes that each of these takes in a frame."""
    items = entry.items
    if entry.batched:
        return [SUB_ENTRY_OVERHEAD + len(items[i].data) for i in positions]
    if entry.filters is None:
        return [OVERHEAD + len(items[i]) for i in positions]
    filters = entry.filters
    return [FILTER_OVERHEAD + len(items[i]) + len((filters[i] or "").encode()) for i in positions]


def encode_entry(publisher_id: int, entry: Entry, frame_max: int) -> list[bytes]:
    """The frames for what is not settled of this entry: one, unless `frame_max` has shrunk."""
    fits = not frame_max or entry.size + FRAME_OVERHEAD <= frame_max
    if fits and entry.settled is None and entry.ids is None and entry.filters is None:
        if not entry.batched:
            return [encode_publish(publisher_id, entry.first, entry.items)]
        return [encode_sub_entries(publisher_id, entry.items)]
    positions = entry.unsettled()
    frames: list[bytes] = []
    start = 0
    for end in split_at(weights(entry, positions), frame_max, 0):
        frames.append(_encode(publisher_id, entry, positions[start:end]))
        start = end
    return frames


def _encode(publisher_id: int, entry: Entry, positions: list[int]) -> bytes:
    items = [entry.items[i] for i in positions]
    if entry.batched:
        return encode_sub_entries(publisher_id, items)
    all_ids = entry.publishing_ids
    ids = [all_ids[i] for i in positions]
    if entry.filters is None:
        return encode_publish_ids(publisher_id, ids, items)
    return encode_publish_filtered(publisher_id, ids, [entry.filters[i] for i in positions], items)
