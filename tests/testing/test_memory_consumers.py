"""Consumers in memory begin and filter as those of a broker do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from flowstream.client import Environment
from flowstream.testing import MemoryEnvironment
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


async def test_a_start_behind_the_end_waits_for_it():
    memory = MemoryEnvironment({"any": [b"0"]})
    async with memory.consumer("any", offset=2) as consumer:
        memory.append("any", [b"1", b"2", b"3"])
        delivery = await anext(consumer)
    assert (delivery.offset, delivery.bodies) == (2, [b"2", b"3"])


async def test_a_filter_leaves_out_what_does_not_match():
    memory = MemoryEnvironment({"any": [b"a", b"b", b"a"]}, chunk_size=2)
    found = await seen(memory, "any", "first", match=lambda body: body != b"a")
    assert found == [(1, b"b"), (3, b"end")]
