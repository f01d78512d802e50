"""From the entries of Publish frames to chunks: which entries go together into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from flowstream.protocol import Entries

MAX_CHUNK_ENTRIES = 4096
MAX_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Building:
    """A chunk being put together at the tail."""

    entries: list[bytes] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    filters: set[str] = field(default_factory=set)
    filtered: bool = False

    def add(self, entries: Entries, size: int) -> None:
        self.entries += entries.entries
        self.records += entries.records
        self.bytes += size
        if entries.filters is None:
            self.filters.add("")
        else:
            self.filters.update(value or "" for value in entries.filters)
            self.filtered = self.filtered or any(entries.filters)


def build(waiting: Iterable[Entries]) -> Iterator[Building]:
    """Chunks of what waits, in order, each inside the limits; a single entry may be over them."""
    building = Building()
    for entries in waiting:
        size = sum(map(len, entries.entries))
        if building.entries and (
            len(building.entries) + len(entries.ids) > MAX_CHUNK_ENTRIES
            or building.bytes + size > MAX_CHUNK_BYTES
        ):
            yield building
            building = Building()
        if len(entries.ids) <= MAX_CHUNK_ENTRIES:
            building.add(entries, size)
            continue
        every = range(len(entries.ids))
        for start in every[::MAX_CHUNK_ENTRIES]:
            building.add(pick(entries, every[start : start + MAX_CHUNK_ENTRIES]), size)
            yield building
            building = Building()
    if building.entries:
        yield building


def records_in(entry: bytes) -> int:
    """How many messages an entry is: a sub-batch has its count in the two bytes after the first."""
    return int.from_bytes(entry[1:3]) if entry[0] & 0x80 else 1


def pick(entries: Entries, indices: Sequence[int]) -> Entries:
    """These of the entries, in the order of `indices`, which must not be empty."""
    take: Callable[..., Any] = itemgetter(*indices) if len(indices) > 1 else _one(indices[0])
    raw = list(take(entries.entries))
    batches = [at for at, entry in enumerate(raw) if entry[0] & 0x80] if entries.batches else []
    return Entries(
        list(take(entries.ids)),
        raw,
        sum(map(records_in, raw)) if batches else len(raw),
        batches,
        list(take(entries.filters)) if entries.filters is not None else None,
    )


def _one(index: int) -> Callable[[Sequence[Any]], tuple[Any]]:
    return lambda items: (items[index],)
