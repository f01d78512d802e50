"""A program of asyncio alone: what a broker sends is handled by the loop, outside of any task.

Without `anyio.run` nothing but the current task tells anyio which event loop is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

import anyio
import pytest

from flowstream.client import Consumer, Environment, OffsetSpec
from flowstream.connectors import StreamProducer
from flowstream.pipeline import Message, Pipeline
from flowstream.telemetry import ChunkReceived, Confirmed, Event, Published, Telemetry
from flowstream.testing import broker_in_thread


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with broker_in_thread() as broker:
        yield broker.url


async def bodies(consumer: Consumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += (await anext(consumer)).bodies
    return found


def test_confirms_deliveries_and_losses_arrive(url: str) -> None:
    confirmed: list[int] = []

    async def main() -> None:
        async with Environment(url) as environment:
            await environment.create_stream("orders")
            publisher = environment.publisher("orders", on_confirm=confirmed.extend)
            consumer = environment.consumer("orders", offset="first")
            async with publisher, consumer:
                await publisher.send_many([b"1", b"2"])
                await publisher.publish(b"3")
                assert await bodies(consumer, 3) == [b"1", b"2", b"3"]
                await environment.delete_stream("orders")  # the broker tells both of it
                await environment.create_stream("orders")
                await publisher.publish(b"4")
                assert await bodies(consumer, 1) == [b"4"]

    asyncio.run(main())
    assert len(confirmed) == 4


def test_callbacks_may_ask_anyio(url: str) -> None:
    times: dict[str, float] = {}
    arrived: anyio.Event

    class Clock:
        def observe(self, event: Event) -> None:
            if isinstance(event, Published | Confirmed | ChunkReceived):
                times[type(event).__name__] = anyio.current_time()

    def stored(ids: Sequence[int]) -> None:
        times["on_confirm"] = anyio.current_time()
        arrived.set()

    async def main() -> None:
        nonlocal arrived
        arrived = anyio.Event()
        async with Environment(url, telemetry=Telemetry(Clock())) as environment:
            await environment.create_stream("timed")
            async with environment.publisher("timed", on_confirm=stored) as publisher:
                await publisher.send(b"1")
                async with asyncio.timeout(10):
                    await arrived.wait()
            async with environment.consumer("timed") as consumer:
                assert await bodies(consumer, 1) == [b"1"]

    asyncio.run(main())
    assert set(times) == {"Published", "Confirmed", "on_confirm", "ChunkReceived"}


def test_a_group_passes_its_stream_on(url: str) -> None:
    async def begin(stream: str) -> OffsetSpec:
        return OffsetSpec.first()

    async def main() -> None:
        async with Environment(url) as environment:
            await environment.create_stream("events")
            async with environment.publisher("events") as publisher:
                await publisher.publish(b"1")

            def member() -> Consumer:
                return environment.consumer(
                    "events", reference="group", single_active=True, on_active=begin
                )

            async with AsyncExitStack() as both:
                async with member() as first:
                    assert await bodies(first, 1) == [b"1"]
                    second = await both.enter_async_context(member())
                    assert not second.active
                assert await bodies(second, 1) == [b"1"]

    asyncio.run(main())


def test_a_pipeline_runs(url: str) -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async with Environment(url) as environment:
            await environment.create_stream("orders-2")
            async with environment.publisher("orders-2") as publisher:
                await publisher.send_many([b"%d" % n for n in range(100)])
                await publisher.flush()
        pipeline = Pipeline("orders", StreamProducer("orders-2"))

        @pipeline.processor
        async def take(message: Message[bytes]) -> None:
            seen.append(message.data)
            if len(seen) == 100:
                assert pipeline.running is not None
                pipeline.running.stop()

        result = await pipeline.run(url=url)
        assert result.committed == {"orders-2": 99}

    asyncio.run(main())
    assert seen == [b"%d" % n for n in range(100)]
