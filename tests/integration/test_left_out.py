"""What a filter leaves out is done with: tracking and commits pass it, on every broker."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.client import AutoTracking
from flowstream.client.consuming import retention
from flowstream.connectors import Filter, stream_producer
from flowstream.testing import MemoryEnvironment
from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio

NAME = "sifter"
PATIENCE = 30


def wanted(body: bytes) -> bool:
    return body == b"yes"


async def publish(environment: Environment, stream: str, bodies: list[bytes]) -> None:
    async with environment.publisher(stream) as publisher:
        await publisher.publish_many(bodies)


async def stored(environment: Any, stream: str, at_least: int) -> None:
    with anyio.fail_after(PATIENCE):
        while (await environment.query_offset(NAME, stream) or -1) < at_least:
            await anyio.sleep(0.02)


async def test_automatic_tracking_passes_what_match_left_out(
    broker: Broker, stream_name: str
) -> None:
    tracking = AutoTracking(messages=1, interval=0.1)
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, [b"yes"])
        await publish(environment, stream_name, [b"no"] * 3000)
        async with environment.consumer(
            stream_name, reference=NAME, tracking=tracking, match=wanted
        ) as consumer:
            await anext(consumer)
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    async for _ in consumer:
                        pass

                group.start_soon(wait)
                await stored(environment, stream_name, 3000)  # by the clock, as it waits
                group.cancel_scope.cancel()
        async with environment.consumer(
            stream_name, reference=NAME, tracking=tracking, match=wanted
        ) as consumer:
            assert (consumer.position or 0) > 3000
        assert await environment.query_offset(NAME, stream_name) == 3000


async def test_tracking_passes_what_the_broker_left_out(
    broker: Broker, stream_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broker.version < (3, 13):
        pytest.skip("filters need RabbitMQ 3.13 or later")
    monkeypatch.setattr(retention, "FIRST_LOOK", 0.2)
    monkeypatch.setattr(retention, "LOOK_INTERVAL", 0.2)
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name, filter_value=bytes.decode) as publisher:
            await publisher.publish_many([b"yes"])
            for _ in range(10):
                await publisher.publish_many([b"no"] * 10)
        async with environment.consumer(
            stream_name,
            reference=NAME,
            tracking=AutoTracking(messages=1, interval=0.1),
            filter_values=["yes"],
            match=wanted,
        ) as consumer:
            await anext(consumer)
            async with anyio.create_task_group() as group:
                group.start_soon(anext, consumer)
                await stored(environment, stream_name, 80)
                before = await environment.stream_stats(stream_name)
                await anyio.sleep(1.5)  # what is stored does not make it store again, on and on
                after = await environment.stream_stats(stream_name)
                group.cancel_scope.cancel()
        assert before.committed_chunk_id is not None
        assert after.committed_chunk_id is not None
        assert after.committed_chunk_id - before.committed_chunk_id <= 4


@pytest.mark.parametrize("kind", [StreamProducer, SuperStreamProducer])
async def test_commits_pass_what_a_filter_left_out(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_producer, "SKIP_INTERVAL", 0.05)
    environment = MemoryEnvironment({"orders-0": [b"yes", *[b"no"] * 300]})
    environment.super_stream("orders", 1)
    name = "orders-0" if kind is StreamProducer else "orders"
    pipeline = Pipeline(
        NAME, kind(name, filter=Filter(("yes",), match=wanted)), commit_interval=0.05
    )

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        pass

    async with pipeline.start(environment=environment) as running:
        await stored(environment, "orders-0", 300)
        running.stop()
        (await running.wait()).raise_for_error()
    assert environment.offsets[NAME, "orders-0"] == 300
