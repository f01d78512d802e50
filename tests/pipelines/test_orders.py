"""The orders pipeline: what it loads, what it refuses, and that a crash changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from itertools import islice

import pytest

from flowstream import IterableProducer
from flowstream.connectors.sql.sqlite import SqliteDatabase
from flowstream.testing import Crash, Disconnect, MemoryEnvironment, Pause, PipelineTester
from pipelines import feed, orders


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The totals in the warehouse, once a pipeline has run."""
    path = str(tmp_path / "orders.sqlite3")
    monkeypatch.setattr(orders.warehouse, "path", path)

    def totals() -> tuple[int, int, Decimal]:
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT count(*), total(quantity), total(cents) FROM orders"
            count, quantity, cents = connection.execute(query).fetchone()
        return count, int(quantity), Decimal(int(cents)) / 100

    return totals


def order(number: int, amount: str = "1.25", customer: int = 7) -> dict[str, str]:
    return {
        "order_id": str(number),
        "customer_id": str(customer),
        "date": "1997-01-01",
        "quantity": "2",
        "amount": amount,
    }


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_good_orders_are_loaded_in_batches(stored, backend):
    tester = PipelineTester(orders.pipeline)
    result = tester.run_sync(*[order(n) for n in range(700)], backend=backend)
    assert result.ok
    assert [(batch.size, batch.trigger) for batch in result.batches] == [
        (500, "size"),
        (200, "timeout"),
    ]
    assert result.committed == {"orders": 699}
    assert stored() == (700, 1400, Decimal("875.00"))


def test_orders_that_cannot_be_are_dead_letters_and_the_others_are_loaded(stored):
    tester = PipelineTester(orders.pipeline)
    result = tester.run_sync(
        order(0), order(1, "0.00"), order(2, "-3"), order(3, "1.005"), b"{}", order(5)
    )
    assert result.statuses == ["ok", *["dead_lettered"] * 4, "ok"]
    assert [(letter.offset, letter.phase, letter.attempts) for letter in tester.dead_letters()] == [
        (1, "process", 1),
        (2, "process", 1),
        (3, "decode", 1),
        (4, "decode", 1),
    ]
    assert result[1].reason == "amount must be positive"
    assert result.committed == {"orders": 5}
    assert stored() == (2, 4, Decimal("2.50"))


def test_a_warehouse_that_is_away_for_a_moment_is_tried_again(stored, monkeypatch):
    insert, failures = SqliteDatabase.insert, [ConnectionError("away"), OSError("full")]

    def flaky(self, rows, *, apart) -> None:
        if failures:
            raise failures.pop()
        insert(self, rows, apart=apart)

    monkeypatch.setattr(SqliteDatabase, "insert", flaky)
    result = PipelineTester(orders.pipeline).run_sync(order(1), order(2))
    assert result.ok
    assert [outcome.attempts for outcome in result] == [3, 3]
    assert stored() == (2, 4, Decimal("2.50"))


@pytest.mark.parametrize("before", [[], [Pause(0.5)], [Pause(2)], [Pause(10)]])
def test_a_crash_loses_nothing_and_loads_nothing_twice(stored, before):
    tester = PipelineTester(orders.pipeline)
    first, rest = [order(n) for n in range(5)], [order(n) for n in range(5, 9)]
    crashed = tester.run_sync(*first, *before, Crash(), *rest[:2], Disconnect(5), *rest[2:])
    assert crashed.crashed
    result = tester.run_sync()
    assert result.ok
    assert result.committed == {"orders": 8}
    assert stored() == (9, 18, Decimal("11.25"))


def test_customers_keep_their_order(stored):
    source = [order(n, customer=n % 13) for n in range(200)]
    result = PipelineTester(orders.pipeline).run_sync(*source)
    for customer in range(13):
        numbers = [o.order_id for b in result.batches for o in b.data if o.customer_id == customer]
        assert numbers == sorted(numbers)


def test_what_the_feed_sends_is_what_the_orders_pipeline_loads(stored):
    environment = MemoryEnvironment()
    purchases = list(islice(feed.purchases(), 1200))
    source = IterableProducer(purchases)
    fed = PipelineTester(feed.pipeline, producer=source, environment=environment).run_sync()
    assert fed.statuses == ["ok"] * 1200
    assert fed.run is not None
    assert fed.run.reason == "ended"
    assert fed.run.seconds == pytest.approx(1200 / 500, abs=1.5)
    loaded = PipelineTester(orders.pipeline, environment=environment).run_sync()
    assert len(loaded) == 1200
    good = [row for row in purchases if Decimal(row["amount"]) > 0]
    assert stored() == (
        len(good),
        sum(int(row["quantity"]) for row in good),
        sum(Decimal(row["amount"]) for row in good),
    )
