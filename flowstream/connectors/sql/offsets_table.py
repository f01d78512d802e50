"""The table of done offsets, in the database that the messages are written to.

It has one row for each reference and stream. `done` has the ranges of offsets whose messages are
written, such as `0-1041,1043`. The transaction that writes the messages also stores the ranges, so
the database has both or neither. Reading the row locks it until the transaction ends. So if two
processes write the same message, the second one sees what the first one wrote.

`newest` has the times of the newest chunks with done messages, up to some offsets, such as
`1041@1764441000000`. They recognise a stream that was deleted and created again (written_times.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flowstream.connectors.done_ranges import DoneRanges, Range, ranges_of
from flowstream.connectors.written_times import Mark, WrittenTimes
from flowstream.errors import StreamReplaced

TABLE = "flowstream_offsets"
CREATE = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    reference TEXT NOT NULL,
    stream TEXT NOT NULL,
    done TEXT NOT NULL,
    newest TEXT NOT NULL,
    PRIMARY KEY (reference, stream)
)"""
Execute = Callable[[str, Sequence[Any]], list[Any]]
"""Runs a statement, and returns its rows."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database marks parameters, and how a query locks the rows that it reads."""

    mark: str
    locking: str


SQLITE = Dialect("?", "")
"""Transactions start with BEGIN IMMEDIATE, which locks the whole database."""
POSTGRES = Dialect("%s", " FOR UPDATE")


@dataclass(slots=True)
class Record:
    """A row: the done offsets of one stream."""

    done: DoneRanges = field(default_factory=DoneRanges)
    times: WrittenTimes = field(default_factory=WrittenTimes)


class OffsetsTable:
    """The rows of the table, read and written in the caller's transaction."""

    def __init__(self, execute: Execute, dialect: Dialect) -> None:
        self._execute = execute
        self._mark = mark = dialect.mark
        key = f"reference = {mark} AND stream = {mark}"
        self._insert = (
            f"INSERT INTO {TABLE} (reference, stream, done, newest) "
            f"VALUES ({mark}, {mark}, '', '') ON CONFLICT DO NOTHING"
        )
        self._select = f"SELECT done, newest FROM {TABLE} WHERE {key}{dialect.locking}"
        self._update = f"UPDATE {TABLE} SET done = {mark}, newest = {mark} WHERE {key}"
        self._list = f"SELECT stream, done FROM {TABLE} WHERE reference = {mark} ORDER BY stream"
        self._delete = f"DELETE FROM {TABLE} WHERE {key}"

    def check(self) -> None:
        """Raise the database's error if the table does not exist, or may not be written."""
        for statement in (self._select, self._insert, self._update):
            self._execute(f"EXPLAIN {statement}", ("",) * statement.count(self._mark))

    def lock(self, reference: str, stream: str) -> Record:
        """The done offsets of a stream. Nothing else changes them until the transaction ends."""
        record = self.find(reference, stream)
        if record is None:
            self._execute(self._insert, (reference, stream))
            record = self.find(reference, stream)
            assert record is not None
        return record

    def find(self, reference: str, stream: str) -> Record | None:
        """`lock`, if something is stored about the stream."""
        for done, newest in self._execute(self._select, (reference, stream)):
            return Record(DoneRanges(parsed(done)), WrittenTimes(parsed_marks(newest)))
        return None

    def store(self, reference: str, stream: str, record: Record) -> None:
        newest = written_marks(record.times)
        self._execute(self._update, (written(record.done), newest, reference, stream))

    def list(self, reference: str) -> dict[str, DoneRanges]:
        """The done offsets of each stream."""
        rows = self._execute(self._list, (reference,))
        return {stream: DoneRanges(parsed(done)) for stream, done in rows}

    def forget(self, reference: str, stream: str) -> None:
        """Delete what is stored about a stream."""
        self._execute(self._delete, (reference, stream))


def parsed(text: str) -> list[Range]:
    """The ranges in a text such as `0-1041,1043`."""
    ranges = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        ranges.append((int(first), int(last or first)))
    return ranges


def written(ranges: Iterable[Range]) -> str:
    """The text of ranges, such as `0-1041,1043`."""
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in ranges
    )  # fmt: skip


def parsed_marks(text: str) -> list[Mark]:
    """The marks in a text such as `1041@1764441000000`."""
    marks = []
    for part in text.split(",") if text else ():
        offset, _, time = part.partition("@")
        marks.append((int(offset), int(time)))
    return marks


def written_marks(marks: Iterable[Mark]) -> str:
    """The text of marks, such as `1041@1764441000000`."""
    return ",".join(f"{offset}@{time}" for offset, time in marks)


# -- claims

Place = tuple[str, int, int]
"""The stream, offset and chunk time of a message, in milliseconds (0: unknown)."""


class _Group(NamedTuple):
    """The messages of one stream: their indexes in the batch, offsets and times."""

    indexes: Sequence[int]
    offsets: Sequence[int]
    timestamps: Sequence[int]


def _by_stream(places: Sequence[Place | None]) -> dict[str, _Group]:
    """The places by stream; nearly always there is one, and no message without a place."""
    placed = [place for place in places if place is not None]
    streams = [place[0] for place in placed]
    if placed and len(placed) == len(places) and streams.count(streams[0]) == len(streams):
        offsets, timestamps = [place[1] for place in placed], [place[2] for place in placed]
        return {streams[0]: _Group(range(len(places)), offsets, timestamps)}
    groups: dict[str, _Group] = {}
    for index, place in enumerate(places):
        if place is not None:
            if place[0] not in groups:
                groups[place[0]] = _Group([], [], [])
            for column, value in zip(groups[place[0]], (index, *place[1:]), strict=True):
                column.append(value)  # type: ignore[attr-defined]
    return groups


class Claim:
    """Which messages of a batch a transaction has to write: those at the indexes `fresh`.

    The rows of their streams stay locked until the transaction ends. Streams are locked in the
    order of their names, so that two transactions cannot wait for each other. A message without a
    place is always fresh, and nothing is stored about it.
    """

    def __init__(self, table: OffsetsTable, reference: str, places: Sequence[Place | None]) -> None:
        self._table = table
        self._reference = reference
        self._places = places
        self._groups = groups = _by_stream(places)
        self._records = {stream: table.lock(reference, stream) for stream in sorted(groups)}
        placed = sum(len(group.offsets) for group in groups.values())
        self.fresh: list[int] = []
        if placed < len(places):
            self.fresh = [index for index, place in enumerate(places) if place is None]
        self.done: list[int] = []
        for stream, group in groups.items():
            self._sort(stream, group)
        self.fresh.sort()
        self.done.sort()

    def _sort(self, stream: str, group: _Group) -> None:
        record, offsets = self._records[stream], group.offsets
        missing = record.done.missing(offsets)
        if len(missing) == len(offsets) == len(set(offsets)):
            self.fresh += group.indexes
            return
        for position in {*range(len(offsets))}.difference(missing):
            if record.times.is_replaced(offsets[position], group.timestamps[position]):
                raise replaced(self._reference, stream, offsets[position])
            self.done.append(group.indexes[position])
        met: set[int] = set()
        for position in missing:
            offset = offsets[position]
            (self.done if offset in met else self.fresh).append(group.indexes[position])
            met.add(offset)

    def store(self, indexes: Iterable[int], settled: Mapping[str, range]) -> None:
        """Store that the messages at these indexes are written.

        Every message in the ranges `settled` is settled and does not arrive again. So gaps in them
        (messages that were dropped, or went elsewhere) are closed, up to the last written offset.
        """
        chosen = [*indexes]
        groups = self._groups
        if len(chosen) < len(self._places):
            groups = _by_stream([self._places[index] for index in chosen])
        for stream, group in groups.items():
            record, found = self._records[stream], group.offsets
            record.done.add(ranges_of(found))
            run = settled.get(stream, range(0))
            record.times.add(min(found), max(found), max(group.timestamps), run)
            record.done.close_gaps(run, max(found))
            self._table.store(self._reference, stream, record)


def close_gaps(table: OffsetsTable, reference: str, settled: Mapping[str, range]) -> bool:
    """Close the gaps in the ranges `settled`, up to the last offset that is written of each stream.

    Returns whether there were any, so that there is something to commit.
    """
    closed = False
    for stream in sorted(settled):
        record = table.find(reference, stream)
        if record is None or not record.done:
            continue
        before = len(record.done)
        record.done.close_gaps(settled[stream], record.done.last)
        if len(record.done) < before:
            table.store(reference, stream, record)
            closed = True
    return closed


def replaced(reference: str, stream: str, offset: int) -> StreamReplaced:
    where = f"reference = '{reference}' AND stream = '{stream}'"
    return StreamReplaced(
        f"{stream}@{offset} is newer than every message of {stream!r} that was written, but "
        f"{TABLE} has its offset: the stream was deleted and created again. To write the messages "
        "of the new stream, forget what is stored about the old one: flowstream sinks reset MODULE "
        f"--stream {stream}, or DELETE FROM {TABLE} WHERE {where}"
    )
