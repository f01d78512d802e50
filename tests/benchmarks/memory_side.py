"""flowstream without a broker: an iterable source, as a default run of the command line has it."""

from __future__ import annotations

import time
from typing import Any

from flowstream.pipeline import Batch, IterableProducer, Message, Pipeline
from flowstream.telemetry import Telemetry
from tests.benchmarks.scenarios import bodies
from tests.benchmarks.target import Target

BATCH = 1_000


async def _run(pipeline: Pipeline, messages: int, telemetry: Telemetry | None = None) -> float:
    start = time.perf_counter()
    result = await pipeline.run(tune_gc=True, telemetry=telemetry)
    seconds = time.perf_counter() - start
    assert result.settled == {"ok": messages}, result
    return seconds


async def processor(target: Target) -> float:
    """Seconds to process every message, with no batcher."""
    pipeline = Pipeline("memory", IterableProducer(bodies(target.messages)))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        pass

    return await _run(pipeline, target.messages)


def _add_batcher(pipeline: Pipeline) -> None:
    @pipeline.batcher(size=BATCH)
    async def load(batch: Batch[Any]) -> None:
        pass


async def batcher(target: Target, telemetry: Telemetry | None = None) -> float:
    """Seconds to process and batch every message."""
    pipeline = Pipeline("memory", IterableProducer(bodies(target.messages)))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        pass

    _add_batcher(pipeline)
    return await _run(pipeline, target.messages, telemetry)


async def json_batcher(target: Target) -> float:
    """The same with each body decoded from JSON to a dict."""
    pipeline = Pipeline("memory", IterableProducer(bodies(target.messages)))

    @pipeline.processor
    async def handle(message: Message[dict[str, Any]]) -> None:
        if message.data["order_id"] < 0:
            message.fail("no such order")

    _add_batcher(pipeline)
    return await _run(pipeline, target.messages)
