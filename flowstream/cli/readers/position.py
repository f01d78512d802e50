"""The position of a reader in a stream: what it has settled, its lag, and the age of the lag.

Everything comes from the stream protocol, so it is the same on every broker. A run reports its lag
with the same probe.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowstream.cli.output.progress import doing
from flowstream.client import Environment
from flowstream.connectors import beyond
from flowstream.texts import plural


@dataclass(frozen=True, slots=True)
class Position:
    """`offset` is the stored offset: the last settled message, None if nothing is stored.

    `lag` is the number of messages after it. `lag_seconds` is the age of the first of them, by its
    chunk's time and this machine's clock (0 without lag, None if it could not be read). `lost` is
    the number of offsets that retention deleted before they were settled.
    """

    stream: str
    reference: str
    offset: int | None
    first_offset: int | None
    last_offset: int | None
    lag: int
    lag_seconds: float | None
    lost: int

    def row(self) -> dict[str, Any]:
        """The fields, for tables and JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def beyond(self) -> str | None:
        """The warning about a stored offset that the stream does not have yet."""
        if self.offset is None:
            return None
        return beyond(
            self.stream,
            self.reference,
            stored=self.offset,
            first=self.first_offset,
            last=self.last_offset,
        )


def lost(stored: int | None, first: int | None) -> int:
    """The number of offsets after the stored one that the stream no longer has."""
    return 0 if stored is None or first is None else max(0, first - stored - 1)


async def position_of(
    environment: Environment, reference: str, stream: str, options: Mapping[str, Any] | None = None
) -> Position:
    """The position of `reference` in `stream`; `options` are those of the filter it reads with."""
    with doing(f"reading the position in {stream}"):
        return await _position_of(environment, reference, stream, options or {})


async def _position_of(
    environment: Environment, reference: str, stream: str, options: Mapping[str, Any]
) -> Position:
    stored = await environment.query_offset(reference, stream)
    begun = await environment.query_beginning(reference, stream) if stored is None else stored
    backlog = await environment.lag_probe(stream, **options).look(-1 if stored is None else stored)
    first = (await environment.stream_stats(stream)).first_offset
    age: float | None = 0.0
    if backlog.messages:
        age = None if backlog.written is None else max(0.0, time.time() - backlog.written / 1000)
    return Position(
        stream, reference, stored, first, backlog.last, backlog.messages, age, lost(begun, first)
    )


# -- what a change of a stored offset does


@dataclass(frozen=True, slots=True)
class OffsetChange:
    """A change of the stored `offset` (None: nothing stored) of a reader in one stream.

    The reader continues with `goes_on_with`: it handles `again` offsets a second time, or skips
    `skipped` offsets.
    """

    stream: str
    reference: str
    offset: int | None
    goes_on_with: int
    again: int
    skipped: int


def change_of(
    stream: str, reference: str, stored: int | None, target: int, first: int
) -> OffsetChange:
    """The change by which a reader continues with `target`.

    If nothing is stored, the reader is taken to start at the `first` offset of the stream.
    """
    before = first if stored is None else max(stored + 1, first)
    return OffsetChange(
        stream, reference, stored, target, max(0, before - target), max(0, target - before)
    )


def holds(first: int, end: int) -> str:
    """The offsets of a stream in words; `end` is the offset of the next message."""
    return f"has the offsets {first:,} to {end - 1:,}" if end > first else "is empty"


def moved(reference: str, stream: str, before: int | None, offset: int) -> str:
    """The stored change in one line."""
    old = "none" if before is None else f"{before:,}"
    return f"{reference} on {stream}: {old} -> {offset:,}; it continues with offset {offset + 1:,}"


def skips(reference: str, stream: str, before: int | None, goes_on_with: int, count: int) -> str:
    """The warning that a reader skips `count` offsets that it has not handled."""
    begin = goes_on_with - count
    range_ = f"offset {begin:,}" if count == 1 else f"offsets {begin:,} to {goes_on_with - 1:,}"
    since = "" if before is not None else "; nothing was stored, so all offsets are counted"
    return (
        f"{reference} skips up to {plural(count, 'message')} of {stream} that it has not handled "
        f"({range_}; some offsets are the broker's own records{since})"
    )
