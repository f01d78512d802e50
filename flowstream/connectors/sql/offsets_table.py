"""The table of done offsets: what is written already, in the database that it is written to.

It has one row for each reference and stream. `done` are the ranges of offsets whose messages are
written, such as `0-1041,1043`. They are stored by the transaction that writes the messages, so both
are there or neither is. Reading the row locks it until the transaction ends: of two processes that
write the same message, the second one sees what the first one has done.

`newest` is the time of the newest chunk that a done message was in. A stream that is deleted and
created again begins at offset 0, with later chunks: a message that is newer than `newest`, at an
offset that is done, is of another stream with the same name. Leaving it out would lose it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowstream.connectors.done_ranges import DoneRanges, Range, ranges_of
from flowstream.errors import StreamReplaced

TABLE = "flowstream_offsets"
CREATE = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    reference TEXT NOT NULL,
    stream TEXT NOT NULL,
    done TEXT NOT NULL,
    newest BIGINT NOT NULL,
    PRIMARY KEY (reference, stream)
)"""
Execute = Callable[[str, Sequence[Any]], list[Any]]
"""Runs a statement, and returns its rows."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database writes parameters, and a query that locks its row."""

    mark: str
    locking: str


SQLITE = Dialect("?", "")
"""Its transactions lock the whole database: they begin with BEGIN IMMEDIATE."""
POSTGRES = Dialect("%s", " FOR UPDATE")


@dataclass(slots=True)
class Record:
    """A row: what is done of one stream."""

    done: DoneRanges = field(default_factory=DoneRanges)
    newest: int = 0


class OffsetsTable:
    """The rows of the table, read and written in the caller's transaction."""

    def __init__(self, execute: Execute, dialect: Dialect) -> None:
        self._execute = execute
        mark = dialect.mark
        key = f"reference = {mark} AND stream = {mark}"
        self._insert = (
            f"INSERT INTO {TABLE} (reference, stream, done, newest) "
            f"VALUES ({mark}, {mark}, '', 0) ON CONFLICT DO NOTHING"
        )
        self._select = f"SELECT done, newest FROM {TABLE} WHERE {key}{dialect.locking}"
        self._update = f"UPDATE {TABLE} SET done = {mark}, newest = {mark} WHERE {key}"
        self._list = f"SELECT stream, done FROM {TABLE} WHERE reference = {mark} ORDER BY stream"
        self._delete = f"DELETE FROM {TABLE} WHERE {key}"

    def lock(self, reference: str, stream: str) -> Record:
        """What is done of a stream; nobody else changes it until the transaction ends."""
        rows = self._execute(self._select, (reference, stream))
        if not rows:
            self._execute(self._insert, (reference, stream))
            rows = self._execute(self._select, (reference, stream))
        ((done, newest),) = rows
        return Record(DoneRanges(parsed(done)), newest)

    def store(self, reference: str, stream: str, record: Record) -> None:
        self._execute(self._update, (written(record.done), record.newest, reference, stream))

    def list(self, reference: str) -> dict[str, DoneRanges]:
        """What is done, by stream."""
        rows = self._execute(self._list, (reference,))
        return {stream: DoneRanges(parsed(done)) for stream, done in rows}

    def forget(self, reference: str, stream: str) -> None:
        """Nothing of the stream is done any more."""
        self._execute(self._delete, (reference, stream))


def parsed(text: str) -> list[Range]:
    """`0-1041,1043` as ranges."""
    ranges = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        ranges.append((int(first), int(last or first)))
    return ranges


def written(ranges: Iterable[Range]) -> str:
    """Ranges as `0-1041,1043`."""
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in ranges
    )  # fmt: skip


# -- claims

Place = tuple[str, int, int]
"""Of a message: its stream, its offset, and the time of its chunk in milliseconds (0: unknown)."""


class Claim:
    """What a transaction may write of a batch: `fresh` are the indexes of messages not done yet.

    Their rows stay locked until the transaction ends, in one order of streams for everybody.
    A message without a place is always fresh, and nothing is stored about it.
    """

    def __init__(self, table: OffsetsTable, reference: str, places: Sequence[Place | None]) -> None:
        self._table = table
        self._reference = reference
        self._places = places
        streams = {place[0] for place in places if place is not None}
        self._records = {stream: table.lock(reference, stream) for stream in sorted(streams)}
        self.fresh: list[int] = []
        self.done: list[int] = []
        self._sort()

    def _sort(self) -> None:
        by_stream: dict[str, list[int]] = {}
        for index, place in enumerate(self._places):
            if place is None:
                self.fresh.append(index)
            else:
                by_stream.setdefault(place[0], []).append(index)
        for stream, indexes in by_stream.items():
            self._sort_stream(self._records[stream], indexes)
        self.fresh.sort()
        self.done.sort()

    def _sort_stream(self, record: Record, indexes: list[int]) -> None:
        places = [place for index in indexes if (place := self._places[index]) is not None]
        offsets = [offset for _, offset, _ in places]
        missing = record.done.missing(offsets)
        if len(missing) < len(indexes):
            for position in {*range(len(indexes))}.difference(missing):
                stream, offset, timestamp = places[position]
                if timestamp > record.newest > 0:
                    raise replaced(self._reference, stream, offset)
                self.done.append(indexes[position])
        met: set[int] = set()
        for position in missing:
            offset = offsets[position]
            (self.done if offset in met else self.fresh).append(indexes[position])
            met.add(offset)

    def store(self, indexes: Iterable[int], settled: Mapping[str, range]) -> None:
        """Store that the messages at these indexes are written.

        `settled` are ranges in which every message is settled. Nothing in them comes again, so
        gaps in them (of what was dropped, or went elsewhere) are closed, up to what is written.
        """
        offsets: dict[str, list[int]] = {}
        for place in map(self._places.__getitem__, indexes):
            if place is not None:
                stream, offset, timestamp = place
                offsets.setdefault(stream, []).append(offset)
                record = self._records[stream]
                record.newest = max(record.newest, timestamp)
        for stream, found in offsets.items():
            record = self._records[stream]
            record.done.add(ranges_of(found))
            run = settled.get(stream, range(0))
            end = min(run.stop - 1, max(found))
            if run.start <= end:
                record.done.add([(run.start, end)])
            self._table.store(self._reference, stream, record)


def replaced(reference: str, stream: str, offset: int) -> StreamReplaced:
    where = f"reference = '{reference}' AND stream = '{stream}'"
    return StreamReplaced(
        f"{stream}@{offset} is newer than everything that was written of {stream!r}, but "
        f"{TABLE} says that this offset is written: the stream was deleted and created again. To "
        "write the messages of the new stream, forget the old one: "
        f"DELETE FROM {TABLE} WHERE {where}"
    )
