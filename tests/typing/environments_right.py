"""Environments that connectors can use: mypy and pyright must not complain of any line."""

from __future__ import annotations

from flowstream import Environment, IterableProducer, Pipeline
from flowstream.connectors import (
    StreamDelivery,
    StreamEnvironment,
    StreamLag,
    StreamReader,
    StreamWriter,
    SuperStreamReader,
    SuperStreamWriter,
)
from flowstream.testing import MemoryEnvironment

pipeline = Pipeline("orders", IterableProducer([]))


async def uses(environment: StreamEnvironment) -> None:
    lag: StreamLag = environment.lag_probe("orders")
    await lag.look(0)
    async with environment.consumer("orders", offset="next") as consumer:
        reader: StreamReader = consumer
        async for delivery in reader:
            one: StreamDelivery = delivery
            print(one.offset, one.bodies)
    async with environment.super_stream_consumer("orders", single_active=True) as consumers:
        readers: SuperStreamReader = consumers
        print(readers.positions)
    async with environment.publisher("orders") as publisher:
        writer: StreamWriter = publisher
        await writer.publish_many([b"x"])
    async with environment.super_stream_publisher("orders", routing="key") as publishers:
        writers: SuperStreamWriter = publishers
        await writers.publish_many([b"x"], keys=["ann"])


async def with_the_client(environment: Environment) -> None:
    of_the_client: StreamEnvironment = environment
    await uses(of_the_client)
    await uses(environment)
    await pipeline.run(environment=environment)


async def in_memory() -> None:
    memory: StreamEnvironment = MemoryEnvironment({"orders": [1, 2]})
    await uses(memory)
    await pipeline.run(environment=memory)


async def at_an_address() -> None:
    await pipeline.run(url="rabbitmq-stream://localhost")
    async with pipeline.start(url=["rabbitmq-stream://one", "rabbitmq-stream://two"]) as running:
        running.stop()
