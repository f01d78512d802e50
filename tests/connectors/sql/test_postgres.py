"""PostgresSink on a real server: lost connections, deadlocks, zombies, and secrets."""

from __future__ import annotations

import json
import logging
import threading
from decimal import Decimal
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream import Backoff, Drop, Halt, Message, Pipeline, PostgresSink
from flowstream.connectors.sql.postgres import rounds
from flowstream.errors import ConfigurationError, SinkFailed
from tests.connectors.sql.conftest import PostgresStore
from tests.support.pipelines import MemoryStream
from tests.support.postgres import Postgres

pytest.importorskip("psycopg", reason="the extra `postgres`")  # before a loop: importing it blocks
pytestmark = pytest.mark.anyio
COLUMNS = {"id": int, "name": str}
SECRET = "hunter2"


def pipeline_of(count: int, name: str = "shop") -> Pipeline:
    data = [json.dumps({"id": n, "name": "n"}).encode() for n in range(count)]
    pipeline = Pipeline(name, MemoryStream(data), on_failure=Halt())

    @pipeline.processor
    async def process(message: Message[dict[str, Any]]) -> None: ...

    return pipeline


def test_rounds_have_each_key_once_and_keep_the_order() -> None:
    rows = [(1, "a"), (2, "b"), (1, "c"), (1, "d"), (3, "e")]
    assert list(rounds(rows, [0])) == [rows[:2], rows[2:3], rows[3:]]
    assert list(rounds([], [0])) == []


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{SECRET}@[bad", f"host=h password={SECRET} no such option", ""]
)
def test_a_wrong_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^PostgresSink > url: ") as caught:
        PostgresSink(url, "t", columns=COLUMNS)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_password_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sink = PostgresSink(f"postgresql://u:{SECRET}@127.0.0.1:1/shop", "t", columns=COLUMNS)
    assert repr(sink) == "PostgresSink('t' in the PostgreSQL database 'shop' at 127.0.0.1:1)"
    pipeline = pipeline_of(1)
    pipeline.sink("load", sink)
    with pytest.raises(SinkFailed, match="cannot open the PostgreSQL database 'shop'") as caught:
        await pipeline.run()
    assert SECRET not in str(caught.value) + caplog.text + repr(pipeline.topology())


@pytest.mark.slow
async def test_lost_connections_and_a_restart_of_the_server_write_nothing_twice(
    postgres: Postgres,
) -> None:
    store = PostgresStore(postgres)
    sink = store.sink("orders", columns=COLUMNS, attempts=100, backoff=Backoff(0.05, maximum=0.2))
    pipeline = pipeline_of(20_000)
    pipeline.sink("load", sink, size=20, concurrency=3)
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.3):
            store.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        postgres.stop("immediate")
        postgres.start()

    async with anyio.create_task_group() as group, pipeline.start() as running:
        group.start_soon(anyio.to_thread.run_sync, cut)
        await anyio.sleep(1.5)
        done.set()
        with anyio.fail_after(100):
            await running.wait()
    assert store.ask("SELECT count(*), count(DISTINCT id) FROM orders") == [(20_000, 20_000)]
    assert store.done() == {("shop/load", "orders"): "0-19999"}


@pytest.mark.slow
async def test_two_processes_that_both_believe_to_own_the_stream_write_it_once(
    postgres: Postgres,
) -> None:
    store = PostgresStore(postgres)
    results = []

    async def run() -> None:
        pipeline = pipeline_of(3000)
        pipeline.sink("load", store.sink("orders", columns=COLUMNS), size=30, concurrency=2)
        results.append((await pipeline.run()).settled)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)
    assert results == [{"ok": 3000}] * 2
    assert store.ask("SELECT count(*), count(DISTINCT id) FROM orders") == [(3000, 3000)]


@pytest.mark.slow
async def test_a_timeout_ends_what_the_connection_waits_for(postgres: Postgres) -> None:
    store = PostgresStore(postgres)
    store.ask("CREATE TABLE orders (id BIGINT, name TEXT)")
    pipeline = pipeline_of(10)
    sink = store.sink("orders", columns=COLUMNS)
    pipeline.sink("load", sink, size=10, timeout=0.5)
    import psycopg

    with psycopg.connect(store.url) as other:
        other.execute("LOCK TABLE orders IN SHARE MODE")
        with pytest.raises(Exception, match=r"took longer than 0\.5 s"), anyio.fail_after(20):
            await pipeline.run()
    assert store.count() == 0


@pytest.mark.slow
async def test_constraints_that_are_deferred_fail_single_messages(postgres: Postgres) -> None:
    store = PostgresStore(postgres)
    store.ask("CREATE TABLE orders (id BIGINT UNIQUE DEFERRABLE INITIALLY DEFERRED, name TEXT)")
    store.ask("INSERT INTO orders VALUES (3, 'there')")
    pipeline = pipeline_of(5)

    @pipeline.on_failed
    async def failed(failure: Any) -> Any:
        from flowstream import Drop

        return Drop()

    pipeline.sink("load", store.sink("orders", columns=COLUMNS), size=5)
    assert (await pipeline.run()).settled == {"ok": 4, "discarded": 1}
    assert store.count() == 5


def raising(state: str) -> str:
    """A trigger that refuses the row 3 with an SQLSTATE of its own."""
    return (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.id = 3 THEN RAISE EXCEPTION 'closed' USING ERRCODE = '{state}'; END IF; "
        "RETURN NEW; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize("state", ["P0001", "SHOP1", "42501", "XX000"])
async def test_whatever_a_trigger_raises_only_its_row_fails(
    postgres: Postgres, key: str | None, state: str
) -> None:
    store = PostgresStore(postgres)
    store.ask("CREATE TABLE orders (id BIGINT PRIMARY KEY, name TEXT)")
    store.ask(raising(state))
    pipeline = pipeline_of(50)
    pipeline.on_failed(lambda failure: Drop())
    pipeline.sink("load", store.sink("orders", columns=COLUMNS, key=key), size=50)
    result = await pipeline.run()
    assert result.settled == {"ok": 49, "discarded": 1}
    assert store.ask("SELECT id FROM orders WHERE id = 3") == []
    assert store.count() == 49


@pytest.mark.slow
async def test_a_column_that_is_widened_during_the_run_takes_what_fits_now(
    postgres: Postgres,
) -> None:
    """Rows with a key go through a temporary table, which has the types of the columns."""
    store = PostgresStore(postgres)
    store.ask("CREATE TABLE orders (id INTEGER PRIMARY KEY, name VARCHAR(1), price NUMERIC(9, 2))")
    large, exact = 1 << 40, Decimal("1.2345")

    def row(message: Message[dict[str, Any]]) -> dict[str, Any]:
        if message.offset < 5:
            return {"id": message.offset, "name": "n", "price": exact}
        if message.offset == 5:
            store.ask(
                "ALTER TABLE orders ALTER id TYPE BIGINT, ALTER name TYPE TEXT, "
                "ALTER price TYPE NUMERIC"
            )
        return {"id": message.offset + large, "name": "longer", "price": exact}

    pipeline = pipeline_of(10)
    columns = {**COLUMNS, "price": Decimal}
    pipeline.sink("load", store.sink("orders", columns=columns, key="id", row=row), size=1)
    assert (await pipeline.run()).settled == {"ok": 10}
    assert store.ask("SELECT id, name, price FROM orders ORDER BY id") == [
        *[(n, "n", Decimal("1.23")) for n in range(5)],
        *[(n + large, "longer", exact) for n in range(5, 10)],
    ]


@pytest.mark.slow
async def test_a_table_that_is_dropped_fails_the_batch_by_its_name(postgres: Postgres) -> None:
    """Not each row by itself, which would take as many attempts as there are rows."""
    store = PostgresStore(postgres)
    sink = store.sink("orders", columns=COLUMNS)
    pipeline = Pipeline("shop", MemoryStream([b"{}"] * 20), on_failure=Drop())

    @pipeline.processor
    def process(message: Message[dict[str, Any]]) -> dict[str, Any]:
        if message.offset == 19:
            store.ask("DROP TABLE orders")
        return {"id": message.offset, "name": "n"}

    pipeline.sink("load", sink, size=20)
    result = await pipeline.run()
    assert result.settled == {"discarded": 20}
    assert ['relation "orders" does not exist' in it.text for it in result.reasons] == [True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "DROP TABLE orders; CREATE VIEW orders AS SELECT 1 AS id, '' AS name; "
            "GRANT ALL ON orders TO loader",
            "copy to view",
        ),
        ("REVOKE INSERT ON orders FROM loader", "permission denied for table orders"),
        ("REVOKE UPDATE ON flowstream_offsets FROM loader", "permission denied for table flow"),
        ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "row-level security"),
    ],
)
async def test_what_no_row_could_pass_is_reported_before_the_first_message(
    postgres: Postgres, change: str, says: str
) -> None:
    store = PostgresStore(postgres)
    sink = store.sink("orders", columns=COLUMNS)
    await anyio.to_thread.run_sync(sink.initialize)
    store.ask(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'loader') THEN "
        "CREATE ROLE loader LOGIN; END IF; END $$"
    )
    store.ask("GRANT ALL ON ALL TABLES IN SCHEMA public TO loader")
    for statement in change.split("; "):
        store.ask(statement)
    store.url = store.url.replace("postgres:secret@", "loader@")
    pipeline = pipeline_of(5)
    pipeline.sink("load", store.sink("orders", columns=COLUMNS, create=False), size=5)
    with pytest.raises(ConfigurationError, match=says):
        await pipeline.run()
