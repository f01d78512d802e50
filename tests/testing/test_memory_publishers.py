"""Publishing in memory: duplicates, and a connection that is broken."""

from __future__ import annotations

import anyio
import pytest

from flowstream.client import Environment
from flowstream.testing import Disconnect, MemoryEnvironment
from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio


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
