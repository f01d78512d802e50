"""SqliteSink: rows of an SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from flowstream.connectors.sql.columns import Column, Convert, Kind, as_iso, as_text
from flowstream.connectors.sql.offsets_table import CREATE, SQLITE, TABLE, OffsetsTable
from flowstream.connectors.sql.sink import TABLE_NAME, SqlSink, TableArguments
from flowstream.connectors.sql.statements import create_table, insert_into
from flowstream.connectors.sql.transaction import Row
from flowstream.errors import ConfigurationError
from flowstream.schema import Rule, make, takes

BUSY_TIMEOUT = 5.0
"""Seconds that SQLite waits for another writer, before the batch is tried again."""
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
CONVERT: dict[Kind, Convert] = {
    "decimal": as_text,
    "uuid": as_text,
    "datetime": as_iso,
    "date": as_iso,
    "time": as_iso,
}
PATH = Rule("the path of a file", lambda value: isinstance(value, str | Path) and bool(str(value)))


@dataclass(frozen=True)
class SqliteSinkArguments(TableArguments):
    """What `SqliteSink(...)` takes."""

    path: Annotated[str | Path, PATH, "the file of the database"]
    table: Annotated[str, TABLE_NAME, "the table to write to"]


class SqliteSink(SqlSink):
    """Writes a row for each message into a table of an SQLite file, exactly once.

    The columns are the fields of `columns`. With `key`, a row replaces the one that has the same
    values in these fields. The offsets of what is written are stored in the same transaction, in
    the table `flowstream_offsets`: a message that comes again after a crash is left out.

    SQLite has one writer at a time, so `concurrency` brings nothing. A row that the database
    refuses fails its message alone.
    """

    @takes(SqliteSinkArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(SqliteSinkArguments, arguments, values, "SqliteSink")
        super().__init__(options, CONVERT)
        self.path: str = str(options.path)

    @property
    def place(self) -> str:
        return f"the SQLite file {self.path!r}"

    def connect(self) -> SqliteDatabase:
        return SqliteDatabase(self.path, self.table, self.columns, self.key)

    def __repr__(self) -> str:
        return f"SqliteSink({self.path!r}, {self.table!r})"


class SqliteDatabase:
    """A connection to the file, which inserts into one table."""

    def __init__(
        self, path: str, table: str, columns: Sequence[Column], key: Sequence[str]
    ) -> None:
        new = not os.path.exists(path)
        self._connection: Final = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._create = create_table(table, columns, key, TYPES) + " STRICT"
        values = ", ".join("?" * len(columns))
        self._insert = insert_into(table, columns, f"VALUES ({values})", key)
        self._table = table
        self.offsets: Final = OffsetsTable(self.execute, SQLITE)
        try:
            if new:
                self._connection.execute("PRAGMA journal_mode = WAL")
            # The broker may store an offset at once: what is committed must survive a power cut.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            self._connection.close()
            raise

    def execute(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def create_tables(self) -> None:
        """Create the table and that of offsets, where they do not exist."""
        self.begin()
        try:
            self._connection.execute(self._create)
            self._connection.execute(CREATE)
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def check_tables(self, *, offsets: bool) -> None:
        """Raise ConfigurationError where the tables do not exist, or not with these columns."""
        try:
            if offsets:
                self._connection.execute(f"SELECT * FROM {TABLE} LIMIT 0")
            self._connection.execute(f"EXPLAIN {self._insert}", ())
        except sqlite3.ProgrammingError:
            pass  # the statement is right, and its values are missing
        except sqlite3.OperationalError as error:
            if self.lost(error):
                raise
            raise ConfigurationError(f"the table {self._table!r}: {error}") from error

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

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
        if isinstance(error, sqlite3.ProgrammingError):  # a type that has no binding
            return "binding" in str(error)
        return isinstance(error, (*wrong, OverflowError, UnicodeError))

    def lost(self, error: BaseException) -> bool:
        """The file is locked by another writer."""
        code = getattr(error, "sqlite_errorcode", 0)
        return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()
