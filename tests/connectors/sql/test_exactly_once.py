"""ExactlyOnce in handlers: what is rolled back is not claimed, and what is committed is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream import Batch, ExactlyOnce, Halt, IterableProducer, Message, Pipeline, Retry
from flowstream.backoff import Backoff
from flowstream.errors import ConfigurationError
from tests.support.pipelines import MemoryStream
from tests.support.postgres import Postgres

once = ExactlyOnce("totals")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        once.create_table(connection)
        connection.execute("CREATE TABLE totals (total INTEGER)")
        connection.execute("INSERT INTO totals VALUES (0)")
    return path


def bodies(count: int) -> list[bytes]:
    return [json.dumps({"n": n}).encode() for n in range(count)]


def adding(path: Path, producer: Any, fails: Iterator[bool]) -> Pipeline:
    """Adds all numbers; whether a batch fails before its commit says `fails`."""
    retry = Retry(attempts=100, backoff=Backoff(0))
    pipeline = Pipeline("adding", producer, retry=retry, on_failure=Halt())

    @pipeline.processor
    async def process(message: Message[dict[str, int]]) -> None: ...

    @pipeline.batcher(size=7, concurrency=3)
    def add(batch: Batch[dict[str, int]]) -> None:
        with closing(sqlite3.connect(path, timeout=20)) as connection, connection:
            for message in once.claim(connection, batch):
                connection.execute("UPDATE totals SET total = total + ?", (message.data["n"],))
            if next(fails):
                raise OSError("before the commit")

    return pipeline


def total(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT total FROM totals").fetchone()[0])


@pytest.mark.anyio
async def test_sums_are_exact_whatever_is_rolled_back_or_comes_again(path: Path) -> None:
    stream = MemoryStream(bodies(100))
    fails = (turn % 3 == 0 for turn in range(1000))
    for stored in (None, None, 40):
        stream.stored = {} if stored is None else {"orders": stored}
        with anyio.fail_after(60):
            await adding(path, stream, fails).run()
        assert total(path) == sum(range(100))


def forget(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        once.forget(connection, "orders")


@pytest.mark.anyio
async def test_a_stream_is_written_again_once_it_is_forgotten(path: Path) -> None:
    stream = MemoryStream(bodies(10))
    for _ in range(2):
        await adding(path, stream, iter([False] * 10)).run()
        stream.stored.clear()
        await anyio.to_thread.run_sync(forget, path)
    assert total(path) == 2 * sum(range(10))


def test_what_is_left_out_of_a_claim_is_not_written(path: Path) -> None:
    batch = Batch.new("a", "b", "c")
    with closing(sqlite3.connect(path)) as connection:
        with connection:
            claimed = once.claim(connection, batch, batch.messages[:2])
            assert [message.data for message in claimed] == ["a", "b"]
        with connection:
            assert [message.data for message in once.claim(connection, batch)] == ["c"]
        with connection:
            assert once.claim(connection, batch) == []


@pytest.mark.anyio
async def test_a_source_without_stored_offsets_is_refused(path: Path) -> None:
    pipeline = adding(path, IterableProducer(bodies(3)), iter([False] * 10))
    with pytest.raises(Exception, match="the source of 'iterable' stores no offsets"):
        await pipeline.run()
    assert total(path) == 0


def test_other_connections_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected a connection of sqlite3 or psycopg"):
        once.claim(object(), Batch.new(1))


@pytest.mark.slow
def test_claims_in_postgres(postgres: Postgres) -> None:
    import psycopg

    batch = Batch.new("a", "b")
    with psycopg.connect(postgres.database(), autocommit=True) as connection:
        with pytest.raises(ConfigurationError, match=r"claim inside `with connection"):
            once.claim(connection, batch)
        with connection.transaction():
            once.create_table(connection)
        with connection.transaction(force_rollback=True):
            assert len(once.claim(connection, batch)) == 2
        for expected in (["a", "b"], []):
            with connection.transaction():
                assert [message.data for message in once.claim(connection, batch)] == expected


def test_rows_of_a_connection_may_have_any_shape(path: Path) -> None:
    """A handler's connection may make dicts of rows."""
    batch = Batch.new("a", "b")
    for found in (2, 0):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.row_factory = lambda cursor, row: dict(
                zip([column[0] for column in cursor.description], row, strict=True)
            )
            assert len(once.claim(connection, batch)) == found


@pytest.mark.slow
def test_rows_of_a_postgres_connection_may_have_any_shape(postgres: Postgres) -> None:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(postgres.database(), row_factory=dict_row) as connection:
        once.create_table(connection)
        assert len(once.claim(connection, Batch.new("a", "b"))) == 2
        assert once.claim(connection, Batch.new("a", "b")) == []


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_connection_for_async_code_is_refused(postgres: Postgres) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(postgres.database()) as connection:
        with pytest.raises(ConfigurationError, match="AsyncConnection cannot"):
            once.claim(connection, Batch.new("a"))
