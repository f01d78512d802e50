"""flowstream: the same work, with every message confirmed or its offset committed."""

from __future__ import annotations

import time
import uuid

from flowstream.client import Environment
from flowstream.connectors import StreamProducer
from flowstream.pipeline import Batch, Message, Pipeline
from flowstream.protocol import encode_data, encode_data_all
from flowstream.telemetry import Telemetry
from tests.benchmarks.scenarios import bodies
from tests.benchmarks.target import Target

BATCH = 1_000


async def publish_raw(target: Target) -> float:
    """Seconds until the broker has confirmed every message."""
    messages = bodies(target.messages)
    async with (
        Environment(target.url) as environment,
        environment.publisher(target.stream) as publisher,
    ):
        await publisher.publish(messages[0])
        start = time.perf_counter()
        for first in range(1, len(messages), BATCH):
            await publisher.send_many(messages[first : first + BATCH])
        await publisher.flush()
        return time.perf_counter() - start


async def publish_amqp(target: Target) -> float:
    """The same with each body wrapped into an AMQP message."""
    messages = bodies(target.messages)
    async with (
        Environment(target.url) as environment,
        environment.publisher(target.stream) as publisher,
    ):
        await publisher.publish(encode_data(messages[0]))
        start = time.perf_counter()
        for first in range(1, len(messages), BATCH):
            batch = encode_data_all(messages[first : first + BATCH])
            await publisher.send_many(batch)
        await publisher.flush()
        return time.perf_counter() - start


async def pipeline(target: Target, telemetry: Telemetry | None = None) -> float:
    """Seconds from connecting to the last commit read back, as a default run has it."""
    whole = Pipeline(
        "benchmark", StreamProducer(target.stream, reference=f"benchmark-{uuid.uuid4().hex}")
    )
    left = target.messages

    @whole.processor
    async def handle(message: Message[bytes]) -> None:
        pass

    @whole.batcher(size=BATCH)
    async def load(batch: Batch[bytes]) -> None:
        nonlocal left
        left -= batch.size
        if not left:
            assert whole.running is not None
            whole.running.stop()

    start = time.perf_counter()
    result = await whole.run(url=target.url, tune_gc=True, telemetry=telemetry)
    seconds = time.perf_counter() - start
    assert result.settled == {"ok": target.messages}, result
    assert result.committed == {target.stream: target.messages - 1}, result
    return seconds
