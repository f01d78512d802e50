"""One batch, one transaction: the rows, and the offsets that they were made of.

    1. begin, and lock what is known of the batch's streams (offsets_table.py)
    2. insert the rows of messages that are not written yet
    3. store their offsets, and commit

A crash before the commit leaves neither rows nor offsets, and after it both. Rows that the database
refuses fail their messages alone: the transaction is begun again, and the rows are inserted in
halves, and halves of halves, until what is refused is by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from flowstream.connectors.sql.offsets_table import Claim, OffsetsTable, Place

Row = tuple[Any, ...]


class Database(Protocol):
    """A connection that inserts into one table."""

    @property
    def offsets(self) -> OffsetsTable: ...
    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def insert(self, rows: Sequence[Row], *, apart: bool) -> None:
        """Insert all rows or raise. `apart`: after an error the transaction can go on."""

    def refused(self, error: BaseException) -> bool:
        """Whether the error is about the values of rows."""

    def lost(self, error: BaseException) -> bool:
        """Whether the same may succeed soon, perhaps on another connection."""

    def interrupt(self) -> None:
        """End what the connection does, from another thread."""

    def close(self) -> None: ...


class Written(NamedTuple):
    """What became of a batch: indexes of its rows, and what the database said to refused ones."""

    written: list[int]
    done: list[int]
    refused: list[tuple[int, Exception]]


def write_batch(
    database: Database,
    reference: str,
    rows: Sequence[Row],
    places: Sequence[Place | None],
    settled: Mapping[str, range],
) -> Written:
    """Write what is not written yet, each row once. Raises what is not about single rows."""
    for apart in (False, True):
        database.begin()
        try:
            claim = Claim(database.offsets, reference, places)
            try:
                refused = _insert(database, rows, claim.fresh, apart=apart)
            except Exception as error:
                if apart or not database.refused(error):
                    raise
                database.rollback()
                continue
            failed = {index for index, _ in refused}
            written = [index for index in claim.fresh if index not in failed]
            claim.store(written, settled)
            database.commit()
        except BaseException:
            with suppress(Exception):  # the connection may be gone, and the transaction with it
                database.rollback()
            raise
        return Written(written, claim.done, refused)
    raise AssertionError("rows that are inserted apart are refused one by one")


def _insert(
    database: Database, rows: Sequence[Row], indexes: Sequence[int], *, apart: bool
) -> list[tuple[int, Exception]]:
    """Insert rows, and return those that were refused: only where they are inserted `apart`."""
    if not indexes:
        return []
    try:
        database.insert([rows[index] for index in indexes], apart=apart)
    except Exception as error:
        if not apart or not database.refused(error):
            raise
        if len(indexes) == 1:
            return [(indexes[0], error)]
        middle = len(indexes) // 2
        return [
            *_insert(database, rows, indexes[:middle], apart=True),
            *_insert(database, rows, indexes[middle:], apart=True),
        ]
    return []
