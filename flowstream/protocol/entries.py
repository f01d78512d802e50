"""Publish frames in, in bulk: the server's hot path (layout: see `publish`).

Of each message the publishing id and the entry are kept: exactly the bytes that a chunk holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from struct import Struct
from struct import error as struct_error
from typing import Any, ClassVar, overload

from flowstream.errors import ProtocolError
from flowstream.protocol.runs import PROBE, WORTH, cut, run_length
from flowstream.protocol.values import IS_SUB_ENTRY, SUB_ENTRY, SUB_ENTRY_HEADER, SubEntry

_SIMPLE = Struct(">QI").unpack_from
_FILTERED = Struct(">Qh").unpack_from
_LENGTH = Struct(">I").unpack_from
_SUB_ENTRY = SUB_ENTRY.unpack_from


class Entries(Sequence[Any]):
    """The messages of a received Publish frame, as lists that go pairwise.

    `ids`; `entries`: the raw bytes of each, as in a chunk; `filters`: the filter values
    of version 2, else None; `records`: the number of messages, including those in sub-entries;
    `batches`: which of the entries are sub-entries (check them: `sub_entry_is_sound`). As a
    sequence it has the items of `Publish.messages` or `PublishFiltered.messages`.
    """

    __slots__ = ("batches", "entries", "filters", "ids", "records")

    def __init__(
        self,
        ids: list[int],
        entries: list[bytes],
        records: int,
        batches: list[int],
        filters: list[str | None] | None = None,
    ) -> None:
        self.ids: list[int] = ids
        self.entries: list[bytes] = entries
        self.records: int = records
        self.batches: list[int] = batches
        self.filters: list[str | None] | None = filters

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        publishing_id, entry = self.ids[index], self.entries[index]
        if self.filters is not None:
            return publishing_id, self.filters[index], entry[4:]
        if entry[0] < 0x80:
            return publishing_id, entry[4:]
        kind, records, uncompressed, _ = _SUB_ENTRY(entry)
        data = entry[SUB_ENTRY_HEADER:]
        return SubEntry(publishing_id, kind >> 4 & 7, records, uncompressed, data)

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self.ids)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def select(self, indices: Sequence[int]) -> Entries:
        """The entries at these indices, in the order of the indices."""
        entries = list(map(self.entries.__getitem__, indices))
        batches = [at for at, it in enumerate(entries) if it[0] & 0x80] if self.batches else []
        return Entries(
            list(map(self.ids.__getitem__, indices)),
            entries,
            len(entries) + sum(_SUB_ENTRY(entries[at])[1] - 1 for at in batches),
            batches,
            None if self.filters is None else list(map(self.filters.__getitem__, indices)),
        )


def read_entries(data: bytes, position: int, count: int) -> Entries:
    """The messages of a version 1 frame: `count` of them from `position` to the end."""
    found = Entries([], [], count, [])
    left = count
    try:
        while left:
            length = _LENGTH(data, position + 8)[0]
            run = min(left, PROBE)
            stride = 12 + length
            if (
                run >= WORTH
                and length < IS_SUB_ENTRY
                and run_length(data, position + 8, stride, run) >= WORTH
            ):
                run = run_length(data, position + 8, stride, left)
                both: list[Any] = cut(data, position, f"Q{length + 4}s", run)
                found.ids += both[::2]
                found.entries += both[1::2]
                position += run * stride
            else:
                position = _read_some(data, position, run, found)
            left -= run
    except struct_error:
        raise ProtocolError(f"a Publish frame ends before its {count} messages") from None
    if position != len(data):
        raise ProtocolError(f"a Publish frame does not hold exactly {count} messages")
    return found


def _read_some(data: bytes, position: int, count: int, found: Entries) -> int:
    """Read `count` messages one by one. Returns the position after them."""
    ids, add_id, add_entry = found.ids, found.ids.append, found.entries.append
    for _ in repeat(None, count):
        publishing_id, length = _SIMPLE(data, position)
        if length < IS_SUB_ENTRY:
            end = position + 12 + length
        else:
            _, records, _, size = _SUB_ENTRY(data, position + 8)
            end = position + 8 + SUB_ENTRY_HEADER + size
            found.batches.append(len(ids))
            found.records += records - 1
        add_id(publishing_id)
        add_entry(data[position + 8 : end])
        position = end
    return position


def sub_entry_is_sound(entry: bytes, most: int = 64 << 20) -> bool:
    """Whether a server accepts this sub-entry, by the checks of RabbitMQ from 4.3.5 on.

    A known compression, at most `most` bytes uncompressed, at least one message, and for every
    message at least the four bytes of its length.
    """
    kind, records, uncompressed, size = _SUB_ENTRY(entry)
    compression = kind >> 4 & 7
    if compression > 4 or (compression and not size):
        return False
    return bool(0 < records * 4 <= uncompressed <= most)


def read_filtered_entries(data: bytes, position: int, count: int) -> Entries:
    """The messages of a version 2 frame: `count` of them from `position` to the end."""
    ids: list[int] = []
    entries: list[bytes] = []
    filters: list[str | None] = []
    try:
        for _ in repeat(None, count):
            publishing_id, size = _FILTERED(data, position)
            position += 10
            if size < 0:
                filters.append(None)
            else:
                filters.append(str(data[position : position + size], "utf-8"))
                position += size
            length = _LENGTH(data, position)[0]
            if size < -1 or length >= IS_SUB_ENTRY:
                raise ProtocolError("a filtered message has a negative length")
            end = position + 4 + length
            ids.append(publishing_id)
            entries.append(data[position:end])
            position = end
    except struct_error:
        raise ProtocolError(f"a Publish frame ends before its {count} messages") from None
    except UnicodeDecodeError:
        raise ProtocolError("a filter value is not UTF-8") from None
    if position != len(data):
        raise ProtocolError(f"a Publish frame does not hold exactly {count} messages")
    return Entries(ids, entries, count, [], filters)
