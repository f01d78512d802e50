"""The two databases, as one kind of place that rows are written to and asked from."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowstream import PostgresSink, SqliteSink
from flowstream.connectors import SqlSink
from tests.support.postgres import Postgres


class Store:
    """A database of the test's own."""

    def sink(self, table: str = "orders", **options: Any) -> SqlSink:
        raise NotImplementedError

    def ask(self, statement: str) -> list[Any]:
        raise NotImplementedError

    def done(self) -> dict[tuple[str, str], str]:
        """Ranges by reference and stream."""
        found = self.ask("SELECT reference, stream, done FROM flowstream_offsets")
        return {(reference, stream): done for reference, stream, done in found}

    def count(self, table: str = "orders") -> int:
        return int(self.ask(f"SELECT count(*) FROM {table}")[0][0])


class SqliteStore(Store):
    def __init__(self, path: Path) -> None:
        self.path = path

    def sink(self, table: str = "orders", **options: Any) -> SqlSink:
        return SqliteSink(self.path, table, **{"create": True, **options})

    def ask(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()


class PostgresStore(Store):
    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.url = server.database()

    def sink(self, table: str = "orders", **options: Any) -> SqlSink:
        return PostgresSink(self.url, table, **{"create": True, **options})

    def ask(self, statement: str) -> list[Any]:
        return self.server.ask(self.url, statement)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        yield SqliteStore(tmp_path / "store.sqlite3")
    else:
        yield PostgresStore(request.getfixturevalue("postgres"))
