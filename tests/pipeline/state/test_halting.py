"""A halt names every message to discard, and following its advice loses no other message."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from flowstream.errors import Halted
from flowstream.pipeline import Batch, Message, Pipeline
from tests.support.pipelines import MemoryStream, numbers, pipeline_of


def advice(error: BaseException) -> list[str]:
    """The messages that the text says to discard."""
    return re.findall(r"--discard (\S+@\d+)", str(error))


async def halted(pipeline: Pipeline, **options: Any) -> Halted:
    with pytest.raises(Halted) as caught:
        await pipeline.run(**options)
    return caught.value


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("key", [None, lambda m: m.offset % 3])
async def test_the_advice_of_a_halt_loses_no_other_message(concurrency, key):
    """Three messages fail while slower ones before them are still in their handlers."""
    producer = MemoryStream(numbers(40), slices=[1])
    pipeline = pipeline_of(producer)
    handled = set()

    @pipeline.processor(concurrency=concurrency, partition_by=key, max_demand=1)
    async def handle(message: Message[dict]) -> None:
        if message.offset in (3, 5, 20):
            raise ValueError("poison")
        await anyio.sleep(0.01 if message.offset < 3 else 0)
        handled.add(message.offset)

    discarded: set[str] = set()
    told: list[str] = []
    for _ in range(4):
        try:
            result = await pipeline.run(discard=told)
            break
        except Halted as error:
            halt = error
        told = advice(halt)
        assert producer.stored.get("orders", -1) < halt.offset
        assert [f"{stream}@{offset}" for stream, offset in halt.messages] == told
        discarded.update(told)
    assert discarded == {"orders@3", "orders@5", "orders@20"}
    assert handled == set(range(40)) - {3, 5, 20}
    assert producer.stored == {"orders": 39}
    assert result.settled["discarded"] >= 1


async def test_messages_that_fail_together_are_all_named():
    pipeline = pipeline_of(4)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.batcher(size=4)
    async def store(batch: Batch[dict]) -> None:
        raise ValueError("no room")

    error = await halted(pipeline)
    assert advice(error) == [f"orders@{n}" for n in range(4)]
    assert "at orders@0: batch failed in 'store' after 1 attempt: ValueError: no room" in str(error)
    assert "So did orders@1, orders@2, orders@3" in str(error)
    result = await pipeline.run(discard=error.messages)
    assert (result.settled, result.not_discarded) == ({"discarded": 4}, {})


async def test_what_was_discarded_behind_a_halt_is_named_again():
    pipeline = pipeline_of(10)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if message.offset in (2, 7):
            raise ValueError("poison")

    error = await halted(pipeline, discard=["orders@7"])
    assert advice(error) == ["orders@2", "orders@7"]
    assert "the committed offset is before it" in str(error)
    result = await pipeline.run(discard=advice(error))
    assert result.settled == {"ok": 6, "discarded": 2}  # 0 and 1 were committed


async def test_a_pushed_message_that_halts_is_not_to_be_discarded():
    pipeline = pipeline_of(MemoryStream([], endless=True))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise ValueError("poison")

    async with pipeline.start() as running:
        await running.push([b"{}"])
        result = await running.wait()
    assert isinstance(result.error, Halted)
    assert "It was pushed into the pipeline" in str(result.error)
    assert advice(result.error) == []
