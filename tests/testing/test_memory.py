"""The environment in memory answers as the client's does on a broker."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from flowstream import Message, Pipeline, StreamProducer
from flowstream.client import Environment
from flowstream.errors import StreamDoesNotExist
from flowstream.testing import Crash, Crashed, Disconnect, MemoryEnvironment
from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
STARTS = ["first", "last", "next", 0, 2, 4, 5, timedelta(hours=1), LONG_AGO]


async def seen(environment, stream, start, match=None) -> list[tuple[int, bytes]]:
    """What a consumer gets that begins at `start`, when one more message comes."""
    options = {} if match is None else {"match": match, "filter_values": ["x"]}
    found: list[tuple[int, bytes]] = []
    with anyio.fail_after(20):
        async with environment.consumer(stream, offset=start, **options) as consumer:
            await anyio.sleep(0.05)
            async with environment.publisher(stream) as publisher:
                await publisher.publish(b"end")
            async for delivery in consumer:
                found += zip(delivery.offsets, delivery.bodies, strict=True)
                if found[-1][1] == b"end":
                    assert consumer.position == found[-1][0] + 1
                    return found
    raise AssertionError("unreachable")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("start", STARTS, ids=str)
async def test_every_start_is_that_of_a_broker(broker: Broker, stream_name, start):
    answers = []
    memory = MemoryEnvironment()
    async with Environment(broker.url) as real:
        await real.create_stream(stream_name)
        for environment in (real, memory):
            async with environment.publisher(stream_name) as publisher:
                for body in (b"0", b"1", b"2", b"3", b"4"):  # each a chunk
                    await publisher.publish(body)
            statistics = await environment.stream_stats(stream_name)
            answers.append(
                (
                    statistics.first_offset,
                    await environment.last_offset(stream_name),
                    await environment.query_offset("me", stream_name),
                    await seen(environment, stream_name, start),
                )
            )
    assert answers[0] == answers[1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_duplicates_and_offsets_are_those_of_a_broker(broker: Broker, stream_name):
    answers = []
    memory = MemoryEnvironment()
    async with Environment(broker.url) as real:
        await real.create_stream(stream_name)
        for environment in (real, memory):
            async with environment.publisher(stream_name, reference="me") as publisher:
                first = publisher.last_publishing_id
                await publisher.publish_many([b"1", b"2"], publishing_ids=[1, 2])
            async with environment.publisher(stream_name, reference="me") as publisher:
                then = publisher.last_publishing_id
                await publisher.publish_many([b"2", b"3"], publishing_ids=[2, 3])
            await environment.store_offset_verified("me", stream_name, 1)
            stored = await environment.query_offset("me", stream_name)
            found = await seen(environment, stream_name, (stored or 0) + 1)
            answers.append((first, then, stored, [body for _, body in found]))
    assert answers[0] == answers[1]


async def test_a_start_behind_the_end_waits_for_it():
    memory = MemoryEnvironment({"any": [b"0"]})
    async with memory.consumer("any", offset=2) as consumer:
        memory.append("any", [b"1", b"2", b"3"])
        delivery = await anext(consumer)
    assert (delivery.offset, delivery.bodies) == (2, [b"2", b"3"])


async def test_the_partitions_of_super_streams():
    memory = MemoryEnvironment()
    assert memory.super_stream("invoices", 3) == ["invoices-0", "invoices-1", "invoices-2"]
    assert memory.super_stream("regions", ["eu", "us"]) == ["regions-eu", "regions-us"]
    keys = ["hello1", "hello2", "hello3", "hello4"]
    assert {memory.route("invoices", key) for key in keys} <= set(
        await memory.partitions("invoices")
    )


async def test_a_filter_leaves_out_what_does_not_match():
    memory = MemoryEnvironment({"any": [b"a", b"b", b"a"]}, chunk_size=2)
    found = await seen(memory, "any", "first", match=lambda body: body != b"a")
    assert found == [(1, b"b"), (3, b"end")]


async def test_streams_come_and_go():
    memory = MemoryEnvironment()
    await memory.create_stream("any", exist_ok=True)
    await memory.delete_stream("any")
    await memory.delete_stream("any", missing_ok=True)
    with pytest.raises(StreamDoesNotExist):
        await memory.delete_stream("any")
    assert await memory.last_offset("any") is None


async def test_publishing_waits_while_the_connection_is_broken():
    memory = MemoryEnvironment({"in": [Disconnect(60), b"1"]})
    async with (
        memory.consumer("in") as consumer,
        memory.publisher("out") as publisher,
        anyio.create_task_group() as group,
    ):
        group.start_soon(anext, consumer)
        await anyio.sleep(1)
        begin = anyio.current_time()
        await publisher.send(b"x")
        await publisher.flush()
        await memory.store_offset("me", "in", 0)
        assert anyio.current_time() - begin == pytest.approx(59)
    assert memory.stream("out").bodies == [b"x"]


async def test_a_crash_outside_of_a_tester_is_an_error():
    pipeline = Pipeline("any", StreamProducer("any"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    with pytest.raises(Crashed):
        await pipeline.run(environment=MemoryEnvironment({"any": [b"1", Crash()]}))


async def test_timestamps_are_now_unless_they_are_given():
    memory = MemoryEnvironment()
    memory.append("any", [b"1"])
    memory.append("any", [b"2"], timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    memory.append("any", [b"3"], timestamp=7)
    times = [memory.stream("any").chunk_at(offset).timestamp for offset in range(3)]
    assert abs(times[0] - time.time() * 1000) < 60_000
    assert times[1:] == [1_577_836_800_000, 7]
