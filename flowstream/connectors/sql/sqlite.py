"""SqliteSink: writes rows into an SQLite file."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from flowstream.connectors.commit_gate import CommitGate
from flowstream.connectors.sql.columns import Column, Convert, Kind, as_bytes, as_iso, as_text
from flowstream.connectors.sql.offsets_table import CREATE, SQLITE, TABLE, OffsetsTable
from flowstream.connectors.sql.sink import TABLE_NAME, SqlSink, TableArguments
from flowstream.connectors.sql.statements import create_table, insert_into
from flowstream.connectors.sql.transaction import Row
from flowstream.errors import ConfigurationError
from flowstream.schema import Rule, make, takes

BUSY_TIMEOUT = 5.0
"""Seconds that SQLite waits for another writer before the attempt fails."""
TYPES: dict[Kind, str] = {
    "bool": "INTEGER",
    "int": "INTEGER",
    "float": "REAL",
    "decimal": "TEXT",  # a REAL would round it
    "text": "TEXT",
    "bytes": "BLOB",
    "datetime": "TEXT",
    "date": "TEXT",
    "time": "TEXT",
    "uuid": "TEXT",
    "json": "TEXT",
}


def as_number(value: Any) -> Any:
    """The number. NaN is refused, because SQLite would store NULL."""
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("SQLite cannot store NaN")
    return value


CONVERT: dict[Kind, Convert] = {
    "bool": as_number,
    "int": as_number,
    "float": as_number,
    "decimal": as_text,
    "text": as_text,
    "bytes": as_bytes,
    "uuid": as_text,
    "datetime": as_iso,
    "date": as_iso,
    "time": as_iso,
}
PATH = Rule(  # a database in memory ends with its connection, and there are several
    "the path of a file, and not :memory: or a URI",
    lambda value: (
        isinstance(value, str | Path)
        and bool(str(value))
        and not str(value).startswith((":memory:", "file:"))
    ),
)


@dataclass(frozen=True)
class SqliteSinkArguments(TableArguments):
    """What `SqliteSink(...)` takes."""

    path: Annotated[str | Path, PATH, "the file of the database"]
    table: Annotated[str, TABLE_NAME, "the table to write to"]


class SqliteSink(SqlSink):
    """Writes a row for each message into a table of an SQLite file, exactly once.

    The columns are the fields of `columns`. With `key`, a row replaces the one that has the same
    values in these fields. The offsets of what is written are stored in the same transaction, in
    the table `flowstream_offsets`, so a message that arrives again after a crash is skipped.

    SQLite has one writer at a time, so `concurrency` does not make it faster. If the database
    refuses a row, only its message fails.
    """

    @takes(SqliteSinkArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(SqliteSinkArguments, arguments, values, "SqliteSink")
        super().__init__(options, CONVERT)
        self.path: str = str(options.path)

    @property
    def place(self) -> str:
        return f"the SQLite file {self.path!r}"

    @property
    def record_place(self) -> str:
        return f"the SQLite file {os.path.normpath(Path(self.path).absolute())!r}"

    def exists(self) -> bool:
        try:
            return _identity(self.path) is not None
        except OSError:  # such as a folder that may not be entered: to connect says so
            return True

    def connect(self) -> SqliteDatabase:
        return SqliteDatabase(self.path, self.table, self.columns, self.key)

    def __repr__(self) -> str:
        return f"SqliteSink({self.path!r}, {self.table!r})"


PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)
"""Errors that may be gone at the next attempt."""


def _primary(error: BaseException) -> int:
    """The code of an error without its details; 0 if it is not an error of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class FileReplaced(Exception):
    """SQLite writes to the file that it opened, also when nobody can find it any more."""


def _identity(path: str) -> tuple[int, int] | None:
    """Which file has this name; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL. SQLite does not wait here for a process that does the same."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.005, 0.02))


class SqliteDatabase:
    """A connection to the file, which inserts into one table."""

    claims_last: Final = False  # it has one writer at a time

    def __init__(
        self, path: str, table: str, columns: Sequence[Column], key: Sequence[str]
    ) -> None:
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}; create it first")
        new = not os.path.exists(path)
        self._connection: Final = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._path = path
        self.in_doubt: bool = False
        self.gate: Final = CommitGate()
        self._create = create_table(table, columns, key, TYPES) + " STRICT"
        values = ", ".join("?" * len(columns))
        self._insert = insert_into(table, columns, f"VALUES ({values})", key)
        self._table = table
        self.offsets: Final = OffsetsTable(self.execute, SQLITE)
        try:
            if new:
                _use_wal(self._connection)
            # A commit must survive a power cut: the broker may store the offset right after it.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            self._connection.close()
            raise
        self._file = _identity(path)

    def execute(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def create_tables(self) -> None:
        """Create the table and the table of offsets if they do not exist."""
        self.begin()
        try:
            self._connection.execute(self._create)
            self._connection.execute(CREATE)
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def has_offsets(self) -> bool:
        """Whether the table of offsets exists."""
        found = self.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (TABLE,))
        return bool(found)

    def check_tables(self, *, offsets: bool) -> None:
        """Raise ConfigurationError if a table or a column does not exist."""
        try:
            if offsets:
                self._connection.execute(f"SELECT * FROM {TABLE} LIMIT 0")
            self._connection.execute(f"EXPLAIN {self._insert}", ())
        except sqlite3.ProgrammingError:
            pass  # the statement is valid; only its parameters are missing
        except sqlite3.OperationalError as error:
            if self.lost(error):
                raise
            raise ConfigurationError(f"the table {self._table!r}: {error}") from error

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def committing(self) -> nullcontext[None]:
        return nullcontext()

    def commit(self) -> None:
        if _identity(self._path) != self._file:
            raise FileReplaced(
                f"{self._path} is not the file that was opened: it was removed, or another file "
                "has its name"
            )
        self.gate.enter()
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:  # after an error of the disk, the file may have it or not
            self.in_doubt = _primary(error) == sqlite3.SQLITE_IOERR
            raise

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def insert(self, rows: Sequence[Row], *, apart: bool) -> None:
        if not apart:
            self._connection.executemany(self._insert, rows)
            return
        self._connection.execute("SAVEPOINT flowstream_rows")
        try:
            self._connection.executemany(self._insert, rows)
        except BaseException:
            if self._connection.in_transaction:  # a trigger may have rolled all of it back
                self._connection.execute("ROLLBACK TO flowstream_rows")
                self._connection.execute("RELEASE flowstream_rows")
            raise
        self._connection.execute("RELEASE flowstream_rows")

    def refused(self, error: BaseException) -> bool:
        if isinstance(error, sqlite3.Error) and not self._connection.in_transaction:
            return False
        wrong = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
        if isinstance(error, sqlite3.ProgrammingError):  # a type that SQLite cannot store
            return "binding" in str(error)
        return isinstance(error, (*wrong, OverflowError, UnicodeError))

    def lost(self, error: BaseException) -> bool:
        """The file is locked by another writer, or another one, or its disk is full or fails."""
        return isinstance(error, FileReplaced) or _primary(error) in PASSING

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()
