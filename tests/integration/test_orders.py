"""The main job: 69,659 real orders through `flowstream publish` and `flowstream run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.running import Broker
from tests.chaos.orders import (
    ROOT,
    Warehouse,
    committed,
    dead_letters,
    last_offset,
    place_of_its_own,
    publish,
)
from tests.cli.command import Result, flowstream


@pytest.fixture
def url(broker: Broker) -> Iterator[str]:
    with place_of_its_own(broker) as url:
        yield url


def run(url: str, warehouse: Warehouse, *options: str) -> Result:
    command = ("run", "pipelines.orders", "--until-idle", *options)
    env = {"ORDERS_WAREHOUSE": str(warehouse.path)}
    return flowstream(*command, url=url, cwd=ROOT, env=env)


@pytest.mark.slow
def test_every_order_is_loaded_or_dead_lettered_and_a_second_run_has_nothing_to_do(
    url: str, tmp_path: Path
) -> None:
    warehouse = Warehouse(tmp_path / "orders.sqlite3")
    want = publish(url, tmp_path)

    first = run(url, warehouse, "--json")

    assert first.code == 0, first.err
    (result,) = first.json
    assert result["settled"] == {"ok": 69_579, "dead_lettered": 80}
    assert result["unsettled"] == 0
    assert warehouse.totals == want.totals
    assert warehouse.totals[0] == 69_579
    assert warehouse.totals[2] == 250_031_563
    assert warehouse.rows == want.rows
    assert committed(url) == last_offset(url) == want.last == 69_658
    check_dead_letters(url, want.rejected)

    second = run(url, warehouse)

    assert second.code == 0, second.err
    assert "nothing to do: there was no message" in second.out
    assert warehouse.rows == want.rows
    assert committed(url) == want.last
    assert len(dead_letters(url)) == 80


def check_dead_letters(url: str, rejected: frozenset[int]) -> None:
    letters = dead_letters(url)
    assert len(letters) == 80
    assert {properties["x-offset"] for properties, _ in letters} == rejected
    for properties, body in letters:
        assert properties["x-reason"] == "amount must be positive"
        assert properties["x-stream"] == properties["x-pipeline"] == "orders"
        assert properties["x-attempts"] == 1
        # The original body byte for byte: an AMQP message whose data section is the order.
        order = json.loads(body[body.index(b"{") :])
        assert float(order["amount"]) == 0
        assert int(order["order_id"]) == properties["x-offset"] + 1
