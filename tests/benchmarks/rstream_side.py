"""The bare client: rstream 1.1.1, used as its documentation shows for speed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rstream import (
    AMQPMessage,
    Consumer,
    ConsumerOffsetSpecification,
    OffsetType,
    Producer,
    amqp_decoder,
)

from tests.benchmarks.scenarios import bodies
from tests.benchmarks.target import Target

BATCH = 1_000


async def _publish(target: Target, wrap: Any) -> float:
    messages = bodies(target.messages)
    async with Producer(**target.address()) as producer:
        await producer.send_batch(target.stream, [wrap(messages[0])])  # declares the publisher
        start = time.perf_counter()
        for first in range(1, len(messages), BATCH):
            batch = [wrap(body) for body in messages[first : first + BATCH]]
            await producer.send_batch(target.stream, batch)
        return time.perf_counter() - start


async def publish_raw(target: Target) -> float:
    """Seconds until the last batch was handed to the socket; confirms are not waited for."""
    return await _publish(target, bytes)


async def publish_amqp(target: Target) -> float:
    """The same with each body wrapped into an AMQP message."""
    return await _publish(target, lambda body: AMQPMessage(body=body))


async def _consume(target: Target, decoder: Any) -> float:
    done = asyncio.Event()
    left = target.messages

    def callback(message: Any, context: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with Consumer(**target.address()) as consumer:
        start = time.perf_counter()
        await consumer.subscribe(
            target.stream,
            callback,
            decoder=decoder,
            offset_specification=ConsumerOffsetSpecification(OffsetType.FIRST),
        )
        await done.wait()
        return time.perf_counter() - start


async def consume_raw(target: Target) -> float:
    """Seconds from subscribing to the last message, callback counting only."""
    return await _consume(target, None)


async def consume_amqp(target: Target) -> float:
    """The same, each message AMQP-decoded."""
    return await _consume(target, amqp_decoder)
