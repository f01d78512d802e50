"""The store on disk: one SQLite file, one row per chunk, one transaction per group of changes.

Durable means: in WAL mode with `synchronous=FULL` SQLite syncs its write-ahead log to the disk in
every COMMIT, before `commit` returns; so the group survives `kill -9` and a power cut
(sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous). The database file itself is synced
at checkpoints; until then the log has the changes, and opening the file after a crash reads them
from there. A log that was torn in the middle of a write ends with the last whole transaction.

To back up a running broker use `sqlite3 FILE ".backup COPY"`, or copy FILE and FILE-wal at the same
instant.

Deleting a stream or truncating it only records what has become garbage, and `collect` frees it in
small steps: so no transaction takes long, and confirms do not wait for a large deletion. Freed
pages are used again by later chunks; the file does not shrink.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flowstream.broker.records import (
    AddChunk,
    AddStream,
    AddSuperStream,
    Change,
    Contents,
    DropOffset,
    DropSequence,
    DropStream,
    DropSuperStream,
    SaveOffset,
    SaveSegment,
    SaveSequence,
    Segment,
    StoredChunk,
    StreamRecord,
    Truncate,
)
from flowstream.broker.store import Filter
from flowstream.errors import ConfigurationError

_APPLICATION_ID = 0x666C6F77  # "flow"
_LAYOUT = 1

_SCHEMA = """
CREATE TABLE stream (
    key INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, arguments TEXT NOT NULL);
CREATE TABLE segment (
    stream INTEGER NOT NULL, first_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    bytes INTEGER NOT NULL, chunks INTEGER NOT NULL, last_timestamp INTEGER NOT NULL,
    PRIMARY KEY (stream, first_offset)) WITHOUT ROWID;
CREATE TABLE chunk (
    stream INTEGER NOT NULL, chunk_id INTEGER NOT NULL, records INTEGER NOT NULL,
    timestamp INTEGER NOT NULL, filters TEXT, blob BLOB NOT NULL, PRIMARY KEY (stream, chunk_id));
CREATE INDEX chunk_time ON chunk (stream, timestamp);
CREATE TABLE tracked_offset (
    stream INTEGER NOT NULL, reference TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (stream, reference)) WITHOUT ROWID;
CREATE TABLE sequence (
    stream INTEGER NOT NULL, reference TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (stream, reference)) WITHOUT ROWID;
CREATE TABLE super_stream (name TEXT NOT NULL PRIMARY KEY, partitions TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE garbage (stream INTEGER NOT NULL PRIMARY KEY, before INTEGER);
"""

_COLLECT_CHUNKS = 64
_READ_ROWS = 512
_WORDS = 2**64


def _signed(value: int) -> int:
    """A u64 of the protocol as SQLite's signed integer: the upper half becomes negative."""
    return value if value < _WORDS // 2 else value - _WORDS


def _unsigned(value: int) -> int:
    return value % _WORDS


def _encode_filters(filters: frozenset[str] | None) -> str | None:
    return None if filters is None else json.dumps(sorted(filters))


def _decode_filters(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(json.loads(text))


class SqliteStore:
    """A store in one file. Raises ConfigurationError if the file is not a store of this layout."""

    blocking = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            self._writer = self._connect()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._writer.close()
            raise self._unusable(error) from error
        except ConfigurationError:
            self._writer.close()
            raise

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"{self._path} cannot be opened as the embedded broker's store: {error}; "
            "restore it from a backup, or choose another data directory"
        )

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=64
        )

    def _prepare(self) -> None:
        writer = self._writer
        found = writer.execute("PRAGMA application_id").fetchone()[0]
        if not found and writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigurationError(
                f"{self._path} is a database of another program; choose another data directory"
            )
        # Chunks are large: with larger pages each is spread over fewer of them.
        writer.execute("PRAGMA page_size = 16384")
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = FULL")
        # A checkpoint for every 32 MB of log, which is then cut to 64 MB at most.
        writer.execute("PRAGMA wal_autocheckpoint = 2000")
        writer.execute("PRAGMA journal_size_limit = 67108864")
        if not found:
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    writer.execute(statement)
                writer.execute(f"PRAGMA user_version = {_LAYOUT}")
                writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            return
        layout = writer.execute("PRAGMA user_version").fetchone()[0]
        if (found, layout) != (_APPLICATION_ID, _LAYOUT):
            raise ConfigurationError(
                f"{self._path} has store layout {layout}, and this version of flowstream reads "
                f"layout {_LAYOUT}; use the version that wrote it, or choose another data directory"
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    # --- loading and committing -------------------------------------------------------------

    def load(self) -> Contents:
        """Everything but the chunks. The time it takes does not depend on how many there are.

        Raises ConfigurationError if the file is damaged.
        """
        try:
            return self._load()
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:
            raise self._unusable(error) from error

    def _load(self) -> Contents:
        query = self._writer.execute
        streams = {
            key: StreamRecord(key, name, json.loads(arguments), last_chunk_id, last_chunk_end)
            for key, name, arguments, last_chunk_id, last_chunk_end in query(
                "SELECT key, name, arguments, ifnull(chunk_id, -1), ifnull(chunk_id + records, 0)"
                " FROM stream LEFT JOIN chunk ON chunk.stream = key AND chunk_id ="
                " (SELECT max(chunk_id) FROM chunk AS newest WHERE newest.stream = key)"
            )
        }
        for key, *segment in query(
            "SELECT stream, first_offset, next_offset, bytes, chunks, last_timestamp"
            " FROM segment ORDER BY stream, first_offset"
        ):
            streams[key].segments.append(Segment(*segment))
        for key, reference, value in query("SELECT stream, reference, value FROM tracked_offset"):
            streams[key].offsets[reference] = _unsigned(value)
        for key, reference, value in query("SELECT stream, reference, value FROM sequence"):
            streams[key].sequences[reference] = _unsigned(value)
        super_streams = {
            name: [(partition, key) for partition, key in json.loads(partitions)]
            for name, partitions in query("SELECT name, partitions FROM super_stream")
        }
        last = query("SELECT seq FROM sqlite_sequence WHERE name = 'stream'").fetchone()
        return Contents(list(streams.values()), super_streams, last[0] + 1 if last else 1)

    def commit(self, changes: Sequence[Change]) -> None:
        with self._transaction():
            for change in changes:
                _APPLY[type(change)](self._writer, change)

    def bytes_used(self) -> int:
        names = (self._path, Path(f"{self._path}-wal"))
        return sum(name.stat().st_size for name in names if name.exists())

    def close(self) -> None:
        with self._lock:
            for reader in self._readers:
                reader.close()
            self._readers.clear()
        self._writer.close()

    def collect(self) -> bool:
        row = self._writer.execute("SELECT stream, before FROM garbage LIMIT 1").fetchone()
        if row is None:
            return False
        stream, before = row
        with self._transaction():
            freed = self._writer.execute(
                "DELETE FROM chunk WHERE rowid IN (SELECT rowid FROM chunk"
                " WHERE stream = ? AND chunk_id < ifnull(?, 9223372036854775807)"
                " ORDER BY chunk_id LIMIT ?)",
                (stream, before, _COLLECT_CHUNKS),
            ).rowcount
            if freed < _COLLECT_CHUNKS:
                self._writer.execute("DELETE FROM garbage WHERE stream = ?", (stream,))
        return True

    # --- reading ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            reader = self._readers.pop() if self._readers else self._connect()
        try:
            yield reader
        finally:
            with self._lock:
                self._readers.append(reader)

    def read(
        self, stream: int, chunk_id: int, until: int, filters: Filter | None, max_bytes: int
    ) -> tuple[list[StoredChunk], int]:
        found: list[StoredChunk] = []
        with self._reader() as reader:
            rows = reader.execute(
                "SELECT rowid, chunk_id, records, timestamp, filters FROM chunk"
                " WHERE stream = ? AND chunk_id >= ? AND chunk_id < ? ORDER BY chunk_id LIMIT ?",
                (stream, chunk_id, _signed_limit(until), _READ_ROWS),
            ).fetchall()
            for rowid, row_id, records, timestamp, text in rows:
                if max_bytes <= 0:
                    break
                values = _decode_filters(text)
                if filters is None or filters.matches(values):
                    blob = reader.execute("SELECT blob FROM chunk WHERE rowid = ?", (rowid,))
                    row = blob.fetchone()
                    if row is None:  # `collect` has freed it meanwhile
                        continue
                    found.append(StoredChunk(row_id, records, timestamp, values, row[0]))
                    max_bytes -= len(row[0])
                chunk_id = row_id + records
        return found, chunk_id

    def _one(self, sql: str, parameters: tuple[int, ...]) -> tuple[int, ...] | None:
        with self._reader() as reader:
            row: tuple[int, ...] | None = reader.execute(sql, parameters).fetchone()
        return row

    def locate(self, stream: int, offset: int) -> int | None:
        offset = _signed_limit(offset)
        row = self._one(
            "SELECT chunk_id, chunk_id + records FROM chunk WHERE stream = ? AND chunk_id <= ?"
            " ORDER BY chunk_id DESC LIMIT 1",
            (stream, offset),
        )
        if row is not None and offset < row[1]:
            return row[0]
        row = self._one(
            "SELECT chunk_id FROM chunk WHERE stream = ? AND chunk_id > ?"
            " ORDER BY chunk_id LIMIT 1",
            (stream, offset),
        )
        return row[0] if row else None

    def locate_time(self, stream: int, timestamp: int) -> int | None:
        row = self._one(
            "SELECT chunk_id FROM chunk WHERE stream = ? AND timestamp >= ?"
            " ORDER BY timestamp, chunk_id LIMIT 1",
            (stream, timestamp),
        )
        return row[0] if row else None


def _signed_limit(offset: int) -> int:
    """An offset beyond the signed range is past the end of every stream, as the limit itself is."""
    return min(offset, _WORDS // 2 - 1)


# --- one function for each kind of change -----------------------------------------------------


def _add_stream(db: sqlite3.Connection, change: AddStream) -> None:
    db.execute(
        "INSERT INTO stream (key, name, arguments) VALUES (?, ?, ?)",
        (change.stream, change.name, json.dumps(change.arguments)),
    )


def _drop_stream(db: sqlite3.Connection, change: DropStream) -> None:
    db.execute("DELETE FROM stream WHERE key = ?", (change.stream,))
    for table in ("segment", "tracked_offset", "sequence"):
        db.execute(f"DELETE FROM {table} WHERE stream = ?", (change.stream,))  # noqa: S608
    db.execute("INSERT OR REPLACE INTO garbage VALUES (?, NULL)", (change.stream,))


def _add_chunk(db: sqlite3.Connection, change: AddChunk) -> None:
    chunk = change.chunk
    filters = _encode_filters(chunk.filters)
    db.execute(
        "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?)",
        (change.stream, chunk.chunk_id, chunk.records, chunk.timestamp, filters, chunk.blob),
    )


def _save_segment(db: sqlite3.Connection, change: SaveSegment) -> None:
    it = change.segment
    db.execute(
        "INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?, ?)",
        (change.stream, it.first_offset, it.next_offset, it.bytes, it.chunks, it.last_timestamp),
    )


def _truncate(db: sqlite3.Connection, change: Truncate) -> None:
    parameters = (change.stream, change.before)
    db.execute("DELETE FROM segment WHERE stream = ? AND first_offset < ?", parameters)
    db.execute("INSERT OR REPLACE INTO garbage VALUES (?, ?)", parameters)


def _save_offset(db: sqlite3.Connection, change: SaveOffset) -> None:
    db.execute(
        "INSERT OR REPLACE INTO tracked_offset VALUES (?, ?, ?)",
        (change.stream, change.reference, _signed(change.offset)),
    )


def _drop_offset(db: sqlite3.Connection, change: DropOffset) -> None:
    db.execute(
        "DELETE FROM tracked_offset WHERE stream = ? AND reference = ?",
        (change.stream, change.reference),
    )


def _save_sequence(db: sqlite3.Connection, change: SaveSequence) -> None:
    db.execute(
        "INSERT OR REPLACE INTO sequence VALUES (?, ?, ?)",
        (change.stream, change.reference, _signed(change.sequence)),
    )


def _drop_sequence(db: sqlite3.Connection, change: DropSequence) -> None:
    db.execute(
        "DELETE FROM sequence WHERE stream = ? AND reference = ?",
        (change.stream, change.reference),
    )


def _add_super_stream(db: sqlite3.Connection, change: AddSuperStream) -> None:
    db.execute(
        "INSERT INTO super_stream VALUES (?, ?)", (change.name, json.dumps(change.partitions))
    )


def _drop_super_stream(db: sqlite3.Connection, change: DropSuperStream) -> None:
    db.execute("DELETE FROM super_stream WHERE name = ?", (change.name,))


_APPLY: dict[type, Callable[..., None]] = {
    AddStream: _add_stream,
    DropStream: _drop_stream,
    AddChunk: _add_chunk,
    SaveSegment: _save_segment,
    Truncate: _truncate,
    SaveOffset: _save_offset,
    DropOffset: _drop_offset,
    SaveSequence: _save_sequence,
    DropSequence: _drop_sequence,
    AddSuperStream: _add_super_stream,
    DropSuperStream: _drop_super_stream,
}
