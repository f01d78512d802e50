"""The bare client: rstream, used as its documentation shows for speed.

The titles of the scenarios say what is guaranteed: without a confirm callback nobody learns of a
message that is lost, and without `store_offset` every start begins anew.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rstream import (
    AMQPMessage,
    Consumer,
    ConsumerOffsetSpecification,
    OffsetType,
    Producer,
    SuperStreamConsumer,
    amqp_decoder,
)

from tests.benchmarks.bodies import bodies
from tests.benchmarks.measuring import BATCH, Latencies, Stopwatch, Target, send_at_rate

Measured = dict[str, Any]
FIRST = ConsumerOffsetSpecification(OffsetType.FIRST)
STORE_EVERY = 10_000
"""Messages between two stored offsets, as many as `commit_every` of a pipeline."""


class Confirms:
    """Counts confirms; `all` is set when as many came as were expected."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self.all = asyncio.Event()

    def __call__(self, status: Any) -> None:
        assert status.is_confirmed, status
        self._left -= 1
        if not self._left:
            self.all.set()


async def publish(target: Target) -> Measured:
    """Until the last batch is with the socket or, with "confirmed", until all are confirmed."""
    messages = bodies(target.messages)
    amqp = target.options.get("amqp", False)
    confirms = Confirms(len(messages) - 1) if target.options.get("confirmed") else None
    async with Producer(**target.address()) as producer:
        await producer.send_batch(target.stream, [messages[0]])  # declares the publisher
        watch = Stopwatch()
        for first in range(1, len(messages), BATCH):
            some: list[Any] = messages[first : first + BATCH]
            if amqp:
                some = [AMQPMessage(body=body) for body in some]
            await producer.send_batch(target.stream, some, on_publish_confirm=confirms)
        if confirms is not None:
            await confirms.all.wait()
        return watch.stop(len(messages) - 1)


async def consume(target: Target) -> Measured:
    """From connecting to the last message; the callback counts, and stores with "store"."""
    done = asyncio.Event()
    left = target.messages
    store = target.options.get("store", False)

    def callback(message: Any, context: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            done.set()
        if store and not left % STORE_EVERY:
            return consumer.store_offset(target.stream, "benchmark", context.offset)
        return None

    decoder: Any = amqp_decoder if target.options.get("amqp") else None
    watch = Stopwatch()
    async with Consumer(**target.address()) as consumer:
        await consumer.subscribe(
            target.stream, callback, decoder=decoder, offset_specification=FIRST
        )
        await done.wait()
        return watch.stop(target.messages)


async def consume_super(target: Target) -> Measured:
    """The same over all partitions of a super stream."""
    done = asyncio.Event()
    left = target.messages

    def callback(message: Any, context: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    watch = Stopwatch()
    async with SuperStreamConsumer(**target.address(), super_stream=target.stream) as consumer:
        await consumer.subscribe(callback, offset_specification=FIRST)
        await done.wait()
        return watch.stop(target.messages)


async def copy(target: Target) -> Measured:
    """From one stream to another in batches, until the last copy is confirmed."""
    output = target.options["output"]
    confirms = Confirms(target.messages)
    batch: list[Any] = []
    left = target.messages

    def callback(message: Any, context: Any) -> Any:
        nonlocal left, batch
        left -= 1
        batch.append(message)
        if left and len(batch) < BATCH:
            return None
        full, batch = batch, []
        return producer.send_batch(output, full, on_publish_confirm=confirms)

    address = target.address()
    watch = Stopwatch()
    async with Consumer(**address) as consumer, Producer(**address) as producer:
        await consumer.subscribe(target.stream, callback, offset_specification=FIRST)
        await confirms.all.wait()
        return watch.stop(target.messages)


async def latency_publish(target: Target) -> Measured:
    """Messages at a rate, each confirmed to a callback that counts."""
    confirms = Confirms(target.messages)
    async with Producer(**target.address()) as producer:

        async def send(some: list[Any]) -> None:
            await producer.send_batch(target.stream, some, on_publish_confirm=confirms)

        measured = await send_at_rate(target, send)
        await confirms.all.wait()
        return measured


async def latency_consume(target: Target) -> Measured:
    """From sending to a bare callback."""
    latencies = Latencies(target)
    done = asyncio.Event()

    def callback(message: Any, context: Any) -> None:
        if latencies.take(message):
            done.set()

    async with Consumer(**target.address()) as consumer:
        await consumer.subscribe(target.stream, callback, offset_specification=FIRST)
        print('{"ready": true}', flush=True)
        await done.wait()
        return latencies.result()
