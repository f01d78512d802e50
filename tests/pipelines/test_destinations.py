"""The orders as Parquet files, and in PostgreSQL."""

from __future__ import annotations

import importlib
import json
from decimal import Decimal

import pytest

from flowstream.connectors import complete_files
from flowstream.pipeline import ends_of
from flowstream.testing import PipelineTester
from tests.pipelines.test_orders import order
from tests.support.postgres import Postgres


def test_orders_are_archived_by_month_each_once(tmp_path, monkeypatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet")
    monkeypatch.setenv("ORDERS_ARCHIVE", str(tmp_path / "archive"))
    archive = importlib.reload(importlib.import_module("pipelines.archive"))
    tester = PipelineTester(archive.pipeline)
    late = order(3) | {"date": "1997-02-03"}
    result = tester.run_sync(order(1), order(2, "0"), late, order(4))
    assert result.statuses == ["ok", "dropped", "ok", "ok"]
    files = complete_files(tmp_path / "archive")
    found = {
        file.split("/")[-2]: parquet.ParquetFile(file).read().column("order_id").to_pylist()
        for file in files
    }
    assert found == {"month=1997-01": [1, 4], "month=1997-02": [3]}


@pytest.mark.slow
def test_orders_are_loaded_into_postgres(postgres: Postgres, monkeypatch) -> None:
    database = postgres.database()
    monkeypatch.setenv("ORDERS_POSTGRES", database)
    module = importlib.reload(importlib.import_module("pipelines.postgres"))
    tester = PipelineTester(module.pipeline)
    result = tester.run_sync(order(1), order(2, "0"), order(4), order(4))
    assert result.statuses == ["ok", "dead_lettered", "ok", "ok"]
    rows = postgres.ask(database, "SELECT order_id, amount FROM orders ORDER BY order_id")
    assert rows == [(1, Decimal("1.25")), (4, Decimal("1.25")), (4, Decimal("1.25"))]


def test_priced_orders_are_published_in_order_exactly_once() -> None:
    priced = importlib.import_module("pipelines.priced")
    tester = PipelineTester(priced.pipeline)
    nothing = order(2) | {"quantity": "0"}
    result = tester.run_sync(order(1), nothing, order(3, "3.00"))
    assert result.statuses == ["ok", "dead_lettered", "ok"]
    found = [json.loads(body) for body in tester.published("orders.priced")]
    assert [(it["order_id"], it["each"]) for it in found] == [(1, "0.62"), (3, "1.50")]
    levels = {end.name: end.guarantee.level for end in ends_of(priced.pipeline.declaration)}
    assert levels["priced"] == levels["failures"] == "exactly once"
