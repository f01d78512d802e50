"""The sales pipeline: prices, and what it refuses."""

from __future__ import annotations

import json

from flowstream.testing import PipelineTester
from pipelines import sales


def sale(number: int, quantity: int = 2) -> dict[str, object]:
    return {"order_id": number, "customer_id": 7, "quantity": quantity, "amount": "3.50"}


def test_each_order_gets_its_price():
    tester = PipelineTester(sales.pipeline)
    result = tester.run_sync(*[sale(n) for n in range(300)], key="7")
    assert result.ok
    prices = [json.loads(body) for batch in result.batches for body in batch.data]
    assert sorted(each["order_id"] for each in prices) == list(range(300))
    assert {each["price"] for each in prices} == {"1.75"}


def test_an_order_of_nothing_is_a_dead_letter():
    tester = PipelineTester(sales.pipeline)
    result = tester.run_sync(sale(1), sale(2, quantity=0), sale(3), key="7")
    assert result.statuses == ["ok", "dead_lettered", "ok"]
