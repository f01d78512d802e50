"""The report of a tester: an outcome for each message, with its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from flowstream import (
    Backoff,
    Batch,
    DeadLetter,
    Drop,
    Message,
    Pipeline,
    Retry,
    StreamProducer,
    StreamSink,
)
from flowstream.client import AmqpMessage
from flowstream.errors import ConfigurationError, Halted
from flowstream.testing import (
    PipelineTester,
)

pytestmark = pytest.mark.anyio


@dataclass
class Order:
    id: int
    amount: int = 1


def orders(**options) -> Pipeline:
    """Amount 0 is dropped, -1 fails for good, -2 at the first try, -3 raises; sizes of 3."""
    pipeline = Pipeline("orders", StreamProducer("orders"), **options)

    @pipeline.processor(concurrency=2, partition_by=lambda m: m.data.id % 5)
    async def check(message: Message[Order]) -> None:
        amount = message.data.amount
        if amount == 0:
            message.drop("free")
        elif amount == -1 or (amount == -2 and message.attempt == 1):
            message.fail(f"amount {amount}")
        elif amount == -3:
            raise ValueError("minus three")

    @pipeline.batcher(size=3, batch_timeout=60)
    def load(batch: Batch[Order]) -> None:
        if any(order.amount == -4 for order in batch.data):
            raise RuntimeError("cannot load")

    return pipeline


DEAD = DeadLetter("orders.dead")


orders()  # pydantic looks for its plugins at its first use, which blocks


@pytest.mark.medium
async def test_every_outcome_with_its_reason():
    pipeline = orders(retry=Retry(attempts=3), on_failure=DEAD)
    async with PipelineTester(pipeline) as tester:
        result = await tester.push(
            Order(1), Order(2, 0), Order(3, -1), b"no json", Order(5, -2), Order(6, -3)
        )
    assert result.statuses == ["ok", "dropped", *["dead_lettered"] * 2, "ok", "dead_lettered"]
    assert [outcome.reason for outcome in result][2] == "amount -1"
    assert [(o.phase, o.stage, o.attempts) for o in result] == [
        (None, None, 1),
        (None, None, 1),
        ("process", "processor", 3),
        ("decode", "decode", 1),
        (None, None, 2),
        ("process", "processor", 3),
    ]
    assert isinstance(result[5].error, ValueError)
    assert result.data == [Order(1), Order(5, -2)]
    assert not result.ok
    assert repr(result) == (
        "<RunReport 2 ok, 1 dropped, 3 dead_lettered; first orders@2 in processor: amount -1>"
    )
    (batch,) = result.batches
    assert (batch.size, batch.trigger, batch.offsets) == (2, "timeout", (0, 4))
    assert batch.data == (Order(1), Order(5, -2))
    letters = tester.dead_letters()
    assert [(letter.offset, letter.phase) for letter in letters] == [
        (2, "process"),
        (3, "decode"),
        (5, "process"),
    ]
    assert {letter.body for letter in letters} >= {b"no json"}
    assert tester.committed == {"orders": 5}
    assert pipeline.producer.stream == "orders"
    assert pipeline.declaration.on_failed is None


async def test_a_failing_batch_and_its_retries():
    pipeline = orders(retry=Retry(attempts=2, backoff=Backoff(initial=600)), on_failure=Drop())
    async with PipelineTester(pipeline) as tester:
        result = await tester.push(Order(1), Order(2, -4), Order(3))
    assert result.statuses == ["discarded"] * 3
    assert {(o.reason, o.phase, o.attempts) for o in result} == {
        ("RuntimeError: cannot load", "batch", 2)
    }
    assert [(batch.trigger, batch.attempt) for batch in result.batches] == [
        ("size", 1),
        ("retry", 2),
    ]
    assert isinstance(result.batches[1].error, RuntimeError)


async def test_a_halt_is_an_outcome():
    async with PipelineTester(orders()) as tester:
        result = await tester.push(Order(0), Order(1), Order(2, -1))
        with pytest.raises(ConfigurationError, match="has ended"):
            await tester.push(Order(3))
    assert result[2].status == "halted"
    assert result[2].reason == "amount -1"
    assert isinstance(tester.result.error, Halted)
    assert tester.committed == {"orders": 1}


async def test_what_a_sink_got():
    pipeline = Pipeline("copy", StreamProducer("in"), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[Order]):
        return {"id": message.data.id} if message.data.amount else object()

    pipeline.sink("out", StreamSink("out", amqp=True), size=2)
    tester = PipelineTester(pipeline)
    result = await tester.run(Order(1), Order(2, 0), AmqpMessage.of(b'{"id": 3}'))
    assert result.statuses == ["ok", "discarded", "ok"]
    assert result[1].phase == "sink"
    assert [json.loads(body) for body in tester.published("out")] == [{"id": 1}, {"id": 3}]
    assert [batch.trigger for batch in result.of("out")] == ["size", "timeout"]
