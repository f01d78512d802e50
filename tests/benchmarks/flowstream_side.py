"""flowstream: every message confirmed, or its offset committed and read back."""

from __future__ import annotations

import uuid
from typing import Any

from flowstream.client import Environment, data_of_all, encode_data_all
from flowstream.connectors import StreamProducer, StreamSink, SuperStreamProducer
from flowstream.metrics import Metrics
from flowstream.monitor import Board
from flowstream.pipeline import Message, Pipeline, Producer
from flowstream.telemetry import Telemetry
from tests.benchmarks import shapes
from tests.benchmarks.bodies import bodies
from tests.benchmarks.measuring import (
    BATCH,
    Latencies,
    Stopwatch,
    Target,
    resident,
    send_at_rate,
)

Measured = dict[str, Any]


# -- rates ---------------------------------------------------------------------------


async def publish(target: Target) -> Measured:
    """Until the broker has confirmed every message."""
    messages = bodies(target.messages)
    amqp = target.options.get("amqp", False)
    async with (
        Environment(target.url) as environment,
        environment.publisher(target.stream) as publisher,
    ):
        await publisher.publish(messages[0])
        watch = Stopwatch()
        for first in range(1, len(messages), BATCH):
            some = messages[first : first + BATCH]
            await publisher.send_many(encode_data_all(some) if amqp else some)
        await publisher.flush()
        return watch.stop(len(messages) - 1)


async def consume(target: Target) -> Measured:
    """The client alone: from connecting to the last message, a list for each chunk."""
    amqp = target.options.get("amqp", False)
    left = target.messages
    watch = Stopwatch()
    async with (
        Environment(target.url) as environment,
        environment.consumer(target.stream, offset="first") as consumer,
    ):
        async for delivery in consumer:
            left -= len(data_of_all(delivery.bodies) if amqp else delivery.bodies)
            if left <= 0:
                return watch.stop(target.messages)
    raise AssertionError("the consumer ended")


async def pipeline(target: Target) -> Measured:
    """A whole run: from connecting to the last commit, read back from the broker."""
    options = dict(target.options)
    telemetry = _observers() if options.pop("metrics", False) else None
    sample = options.pop("sample_memory", False)
    source = SuperStreamProducer if options.pop("partitioned", False) else StreamProducer
    samples: list[float] = []

    def stop() -> None:
        assert whole.running is not None
        whole.running.stop()

    def look() -> None:
        samples.append(resident())

    end = shapes.End(target.messages, stop, look if sample else None)
    whole = shapes.declare(_from(source, target), end, **options)
    watch = Stopwatch()
    result = await whole.run(url=target.url, tune_gc=True, telemetry=telemetry)
    measured = watch.stop(target.messages)
    assert result.settled == {"ok": target.messages}, result
    committed = sum(offset + 1 for offset in result.committed.values() if offset is not None)
    assert committed >= target.messages, result
    if samples:
        quarter = len(samples) // 4
        measured["growth_mib"] = max(samples[-quarter - 1 :]) - max(samples[: quarter + 1])
    return measured


async def copy(target: Target) -> Measured:
    """The same with `StreamSink` as its end: until every copy is confirmed and committed."""
    whole = Pipeline("benchmark", _from(StreamProducer, target))
    left = target.messages

    @whole.processor
    async def handle(message: Message[bytes]) -> None:
        nonlocal left
        left -= 1
        if not left:
            assert whole.running is not None
            whole.running.stop()

    once = target.options.get("once", False)
    whole.sink("copies", StreamSink(target.options["output"], exactly_once=once), size=BATCH)
    watch = Stopwatch()
    result = await whole.run(url=target.url, tune_gc=True)
    measured = watch.stop(target.messages)
    assert result.settled == {"ok": target.messages}, result
    return measured


def _from(source: type[StreamProducer], target: Target) -> Producer:
    return source(target.stream, reference=f"benchmark-{uuid.uuid4().hex}")


def _observers() -> Telemetry:
    """What `flowstream run --http` counts."""
    board = Board()
    board.expect("benchmark")
    return Telemetry(Metrics(), board)


# -- latency -------------------------------------------------------------------------


async def latency_publish(target: Target) -> Measured:
    """Messages at a rate; each is confirmed, and none waits for another's confirm."""
    async with (
        Environment(target.url) as environment,
        environment.publisher(target.stream) as publisher,
    ):

        async def send(some: list[bytes]) -> None:
            if len(some) == 1:
                await publisher.send(some[0])
            else:
                await publisher.send_many(some)

        return await send_at_rate(target, send)


async def latency_pipeline(target: Target) -> Measured:
    """From sending to the handler of a processor, in a run that commits."""
    latencies = Latencies(target)
    whole = Pipeline("benchmark", _from(StreamProducer, target))

    @whole.processor
    async def handle(message: Message[bytes]) -> None:
        if latencies.take(message.data):
            assert whole.running is not None
            whole.running.stop()

    async with whole.start(url=target.url, tune_gc=True) as running:
        print('{"ready": true}', flush=True)
        (await running.wait()).raise_for_error()
    return latencies.result()


async def latency_consume(target: Target) -> Measured:
    """The client alone: from sending to the loop over the messages of a chunk."""
    latencies = Latencies(target)
    async with (
        Environment(target.url) as environment,
        environment.consumer(target.stream, offset="first") as consumer,
    ):
        print('{"ready": true}', flush=True)
        async for delivery in consumer:
            arrived = [latencies.take(body) for body in delivery.bodies]
            if arrived[-1]:
                return latencies.result()
    raise AssertionError("the consumer ended")
