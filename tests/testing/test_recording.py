"""What a tester writes down of a run, by the hooks of the run."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import pytest

from flowstream import (
    Batch,
    Drop,
    Message,
    Pipeline,
    Retry,
    Slice,
    StreamProducer,
)
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


orders()  # pydantic looks for its plugins at its first use, which blocks


async def test_joint_messages_have_the_worst_outcome():
    pipeline = Pipeline("joint", StreamProducer("any"), on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[bytes]) -> None:
        message.to("good", "bad")

    @pipeline.batcher("good", batch_timeout=10)
    async def good(batch: Batch) -> None: ...

    @pipeline.batcher("bad", batch_timeout=1)
    async def bad(batch: Batch) -> None:
        batch.messages[0].fail("bad")

    result = await PipelineTester(pipeline).run(b"1", b"2")
    assert result.statuses == ["discarded", "ok"]
    assert result[0].reason == "bad"


async def test_worker_processes_are_threads_under_test():
    pipeline = Pipeline("heavy", StreamProducer("any"))
    pipeline.processor(processes=True)(compute)
    pipeline.batcher(processes=True)(total)
    assert (await PipelineTester(pipeline).run(b"1", b"2")).statuses == ["ok"] * 2


def compute(message: Message[bytes]) -> int:
    return int(message.data)


def total(batch: Batch[int]) -> None:
    assert batch.data == [1, 2]


async def test_early_settled_messages_and_control():
    pipeline = Pipeline("early", StreamProducer("any"), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        message.settle()
        message.fail("later")

    async with PipelineTester(pipeline) as tester:
        assert (await tester.push(b"1")).statuses == ["ok"]
        assert tester.running.threads.total_tokens == pipeline.options.max_threads
        tester.running.pause()
        tester.put(b"2")
        await anyio.sleep(100)
        assert tester.committed == {"any": 0}
        tester.running.resume()
        assert len(await tester.idle()) == 2


def test_a_handler_of_slices_is_recorded():
    pipeline = Pipeline("slices", StreamProducer("orders"), retry=Retry(attempts=2))
    given = []

    @pipeline.processor(slices=True)
    async def handle(some: Slice[dict]) -> list[int]:
        given.append(some.offsets)
        if len(given) == 1:
            some.fail(1, "once more")
        return [order["n"] for order in some.data]

    result = PipelineTester(pipeline).run_sync({"n": 1}, {"n": 2}, {"n": 3})
    assert result.statuses == ["ok"] * 3
    assert result.data == [1, 2, 3]
    assert [outcome.attempts for outcome in result] == [1, 2, 1]
    assert given == [[0, 1, 2], [1]]
