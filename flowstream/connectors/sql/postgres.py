"""PostgresSink: writes rows into a PostgreSQL table with COPY. Needs psycopg (extra `postgres`).

Rows are copied straight into the table. With a key, they are first copied into a temporary table,
and one statement inserts or replaces them from there.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from flowstream.connectors.commit_gate import CommitGate
from flowstream.connectors.sql.columns import Column, Convert, Kind, as_bytes, as_text
from flowstream.connectors.sql.offsets_table import CREATE, POSTGRES, TABLE, OffsetsTable
from flowstream.connectors.sql.sink import TABLE_NAME, SqlSink, TableArguments
from flowstream.connectors.sql.statements import (
    create_table,
    insert_into,
    names_of,
    quoted_table,
)
from flowstream.connectors.sql.transaction import Row
from flowstream.errors import ConfigurationError, NotSupported
from flowstream.schema import Rule, make, takes

TYPES: dict[Kind, str] = {
    "bool": "BOOLEAN",
    "int": "BIGINT",
    "float": "DOUBLE PRECISION",
    "decimal": "NUMERIC",
    "text": "TEXT",
    "bytes": "BYTEA",
    "datetime": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "time": "TIME",
    "uuid": "UUID",
    "json": "JSONB",
}
CONVERT: dict[Kind, Convert] = {"text": as_text, "bytes": as_bytes}
"""COPY sends values without a type: a list in a column of text would be stored as its text."""
DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "20", "tcp_user_timeout": "30000"}
"""So a server that disappeared without closing the connection is noticed in 30 seconds."""
SESSION = """
SELECT set_config('lock_timeout', '60s', false),
       set_config('idle_in_transaction_session_timeout', '60s', false),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local'
                  ELSE current_setting('synchronous_commit') END, false)
"""
"""A process that stops in the middle of a transaction must not keep its locks. And a commit must
survive a crash of the server, because the broker may store the offsets right after it."""
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE"
"""Constraints are checked by the statement that breaks them, not by the commit."""
STAGING = "flowstream_staging"
CREATING = 0x666C6F77  # "flow": a lock, since creating a table twice at the same time fails
ENDED = ("08", "57")
"""Classes of errors that end a connection, perhaps right after the commit."""
READ_ONLY = "25006"
"""The server became a standby. A new connection may reach the new primary."""
SECRET = Rule(
    "an address such as postgresql://user:password@host/database",
    lambda value: isinstance(value, str) and bool(value),
    secret=True,
)


@dataclass(frozen=True)
class PostgresSinkArguments(TableArguments):
    """What `PostgresSink(...)` takes."""

    url: Annotated[str, SECRET, "the database: a URL, or a connection string of libpq"] = field(
        repr=False
    )
    table: Annotated[str, TABLE_NAME, "the table to write to, with its schema if it needs one"]


class PostgresSink(SqlSink):
    """Writes a row for each message into a table of PostgreSQL, exactly once.

    The columns are the fields of `columns`. With `key`, a row replaces the one that has the same
    values in these fields. The offsets of what is written are stored in the same transaction, in
    the table `flowstream_offsets`, so a message that arrives again after a crash is skipped.

    Each of the `concurrency` workers has a connection. If the database refuses a row, only its
    message fails. After a deadlock or a lost connection, the batch is written again. It needs
    psycopg 3 (extra `postgres`).
    """

    @takes(PostgresSinkArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(PostgresSinkArguments, arguments, values, "PostgresSink")
        super().__init__(options, CONVERT)
        self._conninfo: Final[dict[str, Any]] = conninfo_of(options.url)

    @property
    def place(self) -> str:
        known = self._conninfo
        host = known.get("host") or known.get("hostaddr") or "localhost"
        port = f":{known['port']}" if "port" in known else ""
        return f"the PostgreSQL database {known.get('dbname', '')!r} at {host}{port}"

    def connect(self) -> PostgresDatabase:
        return PostgresDatabase(self._conninfo, self.table, self.columns, self.key)

    def __repr__(self) -> str:
        return f"PostgresSink({self.table!r} in {self.place})"


def driver() -> Any:
    """psycopg 3. Raises NotSupported if it is not installed."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise NotSupported(
            "PostgresSink needs psycopg 3 (the extra postgres): pip install 'psycopg[binary]'"
        ) from error


def conninfo_of(url: str) -> dict[str, Any]:
    """The parameters of a connection, with defaults. No error quotes the URL and its password."""
    psycopg = driver()
    try:
        given = importlib.import_module("psycopg.conninfo").conninfo_to_dict(url)
    except psycopg.Error:
        raise ConfigurationError(
            "PostgresSink > url: expected an address such as "
            "postgresql://user:password@host/database"
        ) from None
    return {"application_name": "flowstream", **DEFAULTS, **given}


class PostgresDatabase:
    """A connection to the server, which inserts into one table."""

    def __init__(
        self,
        conninfo: dict[str, Any],
        table: str,
        columns: Sequence[Column],
        key: Sequence[str],
    ) -> None:
        self._psycopg: Final = driver()
        # Transactions are started explicitly. Some poolers do not support prepared statements.
        self._connection: Final = self._psycopg.connect(
            **conninfo, autocommit=True, prepare_threshold=None
        )
        self.in_doubt: bool = False
        self.gate: Final = CommitGate()
        self._table = table
        self._columns = columns
        self._key = [[column.name for column in columns].index(name) for name in key]
        # Rows that replace others have to be written in the order of their batches.
        self.claims_last: Final = not key
        self._names = names_of(columns)
        self._create = create_table(table, columns, key, TYPES)
        into = STAGING if key else quoted_table(table)
        self._copy = f"COPY {into} ({self._names}) FROM STDIN"
        staged = f"SELECT {self._names} FROM {STAGING}"
        self._insert = insert_into(table, columns, staged, key)
        self._select = f"SELECT {self._names} FROM {quoted_table(table)}"
        self._staged: list[tuple[int, int]] = []
        self.offsets: Final = OffsetsTable(self.execute, POSTGRES)
        try:
            self._connection.execute(SESSION)
        except BaseException:
            self._connection.close()
            raise

    def execute(self, statement: str, values: Sequence[Any]) -> list[Any]:
        cursor = self._connection.execute(statement, values)
        return [] if cursor.description is None else cursor.fetchall()

    def create_tables(self) -> None:
        """Create the table and the table of offsets if they do not exist."""
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (CREATING,))
            self._connection.execute(self._create)
            self._connection.execute(CREATE)

    def has_offsets(self) -> bool:
        """Whether the table of offsets exists."""
        ((found,),) = self.execute("SELECT to_regclass(%s) IS NOT NULL", (TABLE,))
        return bool(found)

    def check_tables(self, *, offsets: bool) -> None:
        """Raise ConfigurationError if a table or a column does not exist."""
        try:
            if offsets:
                self.offsets.check()
            self._connection.execute(f"{self._select} LIMIT 0")
            self.begin()
            try:
                self._connection.execute("SET LOCAL lock_timeout = '1s'")
                with suppress(self._psycopg.errors.LockNotAvailable):  # the first batch will wait
                    self._insert_all(())  # without rows, which shows what no row could pass
            finally:
                self.rollback()
        except (self._psycopg.ProgrammingError, self._psycopg.NotSupportedError) as error:
            raise ConfigurationError(f"the table {self._table!r}: {_line(error)}") from None

    def begin(self) -> None:
        if not self._key:
            self._connection.execute(BEGIN)
            return
        cursor = self._connection.execute(f"{BEGIN}; {self._select} LIMIT 0")
        while cursor.nextset():
            pass
        self._stage(cursor.pgresult)

    def _stage(self, found: Any) -> None:
        """Create the temporary table, with the types of the columns and without constraints.

        A type may change while the run goes on: the old one would refuse or round values that the
        column takes. From now on the transaction's lock keeps the types as they are.
        """
        types = [(found.ftype(at), found.fmod(at)) for at in range(found.nfields)]
        if types != self._staged:
            self._connection.execute(
                f"DROP TABLE IF EXISTS pg_temp.{STAGING}; "
                f"CREATE TEMPORARY TABLE {STAGING} ON COMMIT DELETE ROWS AS "
                f"{self._select} WITH NO DATA"
            )
            self._staged = types

    @contextmanager
    def committing(self) -> Iterator[None]:
        pipeline = self._psycopg.Pipeline
        try:
            with self._connection.pipeline() if pipeline.is_supported() else nullcontext():
                yield
        except self._psycopg.Error as error:
            state = error.sqlstate
            if state is not None and state[:2] not in ENDED:
                self.in_doubt = False  # the server has answered: it did not commit
            raise
        self.in_doubt = False

    def commit(self) -> None:
        self.gate.enter()
        self.in_doubt = True
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        self._staged = []  # it may have been created by this transaction
        self._connection.execute("ROLLBACK")

    def insert(self, rows: Sequence[Row], *, apart: bool) -> None:
        if not apart:
            self._insert_all(rows)
            return
        self._connection.execute("SAVEPOINT flowstream_rows")
        try:
            self._insert_all(rows)
        except BaseException:
            self._connection.execute("ROLLBACK TO flowstream_rows")
            self._connection.execute("RELEASE flowstream_rows")
            raise
        self._connection.execute("RELEASE flowstream_rows")

    def _insert_all(self, rows: Sequence[Row]) -> None:
        if not self._key:
            self._copy_in(rows)
            return
        for each in rounds(rows, self._key) if rows else ((),):
            self._copy_in(each)
            self._connection.execute(self._insert)
            self._connection.execute(f"DELETE FROM {STAGING}")

    def _copy_in(self, rows: Sequence[Row]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(self._copy) as copy:
            for row in rows:
                copy.write_row(row)

    def refused(self, error: BaseException) -> bool:
        if self.lost(error):
            return False
        # A trigger may raise any SQLSTATE. Without a state, the driver cannot convert a value.
        return isinstance(error, (self._psycopg.Error, TypeError, ValueError, OverflowError))

    def lost(self, error: BaseException) -> bool:
        if self._connection.closed or isinstance(error, self._psycopg.InterfaceError):
            return True
        if not isinstance(error, self._psycopg.Error):
            return False
        state = error.sqlstate or ""
        if state == READ_ONLY:
            return True
        return isinstance(error, self._psycopg.OperationalError) and state[:2] != "54"

    def interrupt(self) -> None:
        """Shut down the socket, which ends any wait of a thread for it."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()


def rounds(rows: Sequence[Row], key: Sequence[int]) -> Iterator[list[Row]]:
    """Rows in groups in which no key occurs twice: a statement cannot replace a row twice."""
    group: list[Row] = []
    met: set[Any] = set()
    for row in rows:
        values = tuple(row[index] for index in key)
        if values in met:
            yield group
            group, met = [], set()
        group.append(row)
        met.add(values)
    if group:
        yield group


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
