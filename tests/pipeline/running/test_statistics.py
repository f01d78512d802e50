"""Statistics show how full everything is that can fill."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from flowstream.errors import Halted
from flowstream.pipeline import Batch, IterableProducer, Message, Pipeline
from tests.support.pipelines import MemoryStream, numbers

pytestmark = pytest.mark.anyio


async def test_statistics_show_every_fill():
    producer = MemoryStream(numbers(100), slices=[100], endless=True)
    pipeline = Pipeline("test", producer, max_in_flight=50)

    @pipeline.processor(concurrency=2, max_demand=3)
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(1)

    pipeline.batcher(size=40, batch_timeout=50)(sink)
    async with pipeline.start() as running:
        await anyio.sleep(10.5)
        statistics = running.statistics()
        processor, batcher = statistics.stages
        assert statistics.in_flight <= 50
        assert (processor.busy, processor.concurrency) == (2, 2)
        assert processor.waiting + batcher.waiting <= 50
        assert batcher.open_batches == 1
        (partition,) = statistics.partitions
        assert (partition.received, partition.tail) == (49, 99)
        assert partition.lag == 100
        assert statistics.phase == "running"
        running.abort()


async def sink(batch: Batch[dict]) -> None:
    """Takes batches."""


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_result_counts_what_was_handled_behind_a_message_that_was_not(resumes: bool):
    producer = MemoryStream(numbers(6)) if resumes else IterableProducer(numbers(6))
    pipeline = Pipeline("test", producer)

    @pipeline.processor(concurrency=2, max_demand=1)
    async def handle(message: Message[dict]) -> None:
        if message.offset == 2:
            await anyio.sleep(1)
            raise ValueError("no")

    async with pipeline.start() as running:
        result = await running.wait()
    assert isinstance(result.error, Halted)
    assert (result.settled, result.unsettled) == ({"ok": 5}, 1)
    assert result.repeated == (3 if resumes else 0)
