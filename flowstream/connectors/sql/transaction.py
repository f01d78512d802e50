"""Writes a batch in one transaction: its rows, and the offsets of its messages.

    1. begin, and lock the done offsets of the batch's streams (offsets_table.py)
    2. insert the rows of messages that are not written yet
    3. store their offsets, and commit

After a crash before the commit, the database has neither the rows nor the offsets; after the
commit, it has both. If the database refuses rows, only their messages fail: the transaction starts
again, and the rows are inserted in halves, and halves of halves, until each refused row is found.

A database that locks only rows claims last, in a first attempt: workers that write messages of one
stream then copy their rows side by side, and wait for each other only to commit. If it turns out
that a message is written already, nothing of that attempt is committed, and the steps above follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple, Protocol

from flowstream.connectors.commit_gate import CommitGate
from flowstream.connectors.sql.offsets_table import Claim, OffsetsTable, Place, close_gaps

Row = tuple[Any, ...]


class Database(Protocol):
    """A connection that inserts into one table."""

    @property
    def offsets(self) -> OffsetsTable: ...
    @property
    def claims_last(self) -> bool:
        """Whether others can write meanwhile, and rows do not replace rows."""

    @property
    def in_doubt(self) -> bool:
        """Whether a commit was sent, and it is not known whether it happened."""

    def begin(self) -> None: ...
    def committing(self) -> AbstractContextManager[None]:
        """Around the last statements and `commit`. They may be one round trip to a server, because
        other workers wait for the lock meanwhile. Raises what they would raise when it ends."""

    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def insert(self, rows: Sequence[Row], *, apart: bool) -> None:
        """Insert all rows, or raise. With `apart`, the transaction can go on after an error."""

    def refused(self, error: BaseException) -> bool:
        """Whether the error is about the values of rows."""

    def lost(self, error: BaseException) -> bool:
        """Whether another attempt may succeed, perhaps on another connection."""

    @property
    def gate(self) -> CommitGate:
        """What `commit` enters; it is reopened for the next batch."""

    def interrupt(self) -> None:
        """Stop the current statement. Called from another thread."""

    def close(self) -> None: ...


class Written(NamedTuple):
    """The outcome of a batch: the indexes of its rows, and the errors of refused ones."""

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
    """Write the rows that are not written yet. Raises errors that are not about single rows."""
    if database.claims_last and any(place is not None for place in places):
        written_at_once = _write_and_claim(database, reference, rows, places, settled)
        if written_at_once is not None:
            return written_at_once
    for apart in (False, True):
        database.begin()
        try:
            if apart:
                database.insert((), apart=False)  # raises if the error was not about the rows
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
            with database.committing():
                claim.store(written, settled)
                database.commit()
        except BaseException:
            with suppress(Exception):  # the connection, and so the transaction, may be gone
                database.rollback()
            raise
        return Written(written, claim.done, refused)
    raise AssertionError("rows that are inserted apart are refused one by one")


def finish_record(database: Database, reference: str, settled: Mapping[str, range]) -> None:
    """Close the gaps that the last batches of a run left in the record of what is written."""
    database.begin()
    try:
        if close_gaps(database.offsets, reference, settled):
            with database.committing():
                database.commit()
        else:
            database.rollback()
    except BaseException:
        with suppress(Exception):
            database.rollback()
        raise


def _write_and_claim(
    database: Database,
    reference: str,
    rows: Sequence[Row],
    places: Sequence[Place | None],
    settled: Mapping[str, range],
) -> Written | None:
    """Insert all rows, claim them, commit. None if a row is refused or written already: then
    nothing is committed. The lock is held from the claim to the commit, so a process that should be
    dead finds its messages done, and its rows vanish with its transaction."""
    database.begin()
    try:
        database.insert(rows, apart=False)
        claim = Claim(database.offsets, reference, places)
        if claim.done:
            database.rollback()
            return None
        with database.committing():
            claim.store(claim.fresh, settled)
            database.commit()
    except BaseException as error:
        again = database.refused(error)
        with suppress(Exception):
            database.rollback()
        if again:
            return None
        raise
    return Written(claim.fresh, [], [])


def _insert(
    database: Database, rows: Sequence[Row], indexes: Sequence[int], *, apart: bool
) -> list[tuple[int, Exception]]:
    """Insert rows. With `apart`, return the refused ones with their errors."""
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
