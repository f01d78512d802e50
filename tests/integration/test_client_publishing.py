"""Publishing on every broker: sub-entries, deduplication, filters, frames, limits."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import Compression, Environment
from flowstream.errors import MessageTooLarge
from tests.brokers.running import Broker
from tests.integration.test_client_basics import numbers, read

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("compression", list(Compression))
async def test_sub_entries(broker: Broker, stream_name: str, compression: Compression) -> None:
    bodies = [b"%06d " % n + b"x" * (n % 500) for n in range(3000)]
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        options: dict[str, Any] = {"sub_entry_size": 100, "compression": compression}
        async with env.publisher(stream_name, **options) as publisher:
            await publisher.publish_many(bodies[:1000])
            for body in bodies[1000:2000]:
                await publisher.send(body)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(bodies[2000:])
        assert await env.last_offset(stream_name) == 2999
        async with env.consumer(stream_name) as consumer:
            assert await read(consumer, 3000) == bodies
        async with env.consumer(stream_name, offset=1234) as consumer:
            assert await read(consumer, 1766) == bodies[1234:]


async def test_a_name_deduplicates(broker: Broker, stream_name: str) -> None:
    """Gaps are allowed; an id at or below the highest is dropped, and confirmed."""
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name, reference="me") as publisher:
            assert publisher.last_publishing_id == 0
            await publisher.publish_many(numbers(10), publishing_ids=range(1, 11))
            await publisher.publish(b"15", publishing_id=15)
        async with env.publisher(stream_name, reference="me") as publisher:
            assert publisher.last_publishing_id == 15
            again = [1, 10, 14, 15, 16]
            await publisher.publish_many([b"%d" % n for n in again], publishing_ids=again)
            await publisher.publish(b"17")
        async with env.publisher(stream_name, reference="another") as publisher:
            await publisher.publish(b"1 of another")
        async with env.consumer(stream_name) as consumer:
            expected = [*numbers(10), b"15", b"16", b"17", b"1 of another"]
            assert await read(consumer, 14) == expected
        assert await env.last_offset(stream_name) == 13


async def test_filters(broker: Broker, stream_name: str) -> None:
    """The broker leaves out chunks, the client the rest; offsets stay what they are."""
    if broker.version < (3, 13):
        pytest.skip("filters came with RabbitMQ 3.13")
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name, filter_size_bytes=32)

        def region(body: bytes) -> str | None:
            return body[:2].decode() if body[:2] != b"--" else None

        async with env.publisher(stream_name, filter_value=region) as publisher:
            for name in (b"eu", b"us", b"--", b"eu", b"as"):
                await publisher.publish_many([name + b"%d" % n for n in range(50)])
        eu = [b"eu%d" % n for n in range(50)]
        options: dict[str, Any] = {"filter_values": ["eu"]}
        is_eu = env.consumer(stream_name, match=lambda b: b[:2] == b"eu", **options)
        async with is_eu as consumer:
            assert await read(consumer, 100) == eu + eu
            assert consumer.position == 200
        options["match_unfiltered"] = True
        wanted = env.consumer(stream_name, match=lambda b: b[:2] in (b"eu", b"--"), **options)
        async with wanted as consumer:
            bodies = await read(consumer, 150)
        assert bodies == eu + [b"--%d" % n for n in range(50)] + eu


async def test_frames_are_split_at_the_agreed_size(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url, frame_max=20_000) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many([bytes(3000)] * 100)
            await publisher.publish(bytes(20_000 - 9 - 12))
            with pytest.raises(MessageTooLarge, match="20,000"):
                await publisher.publish(bytes(20_000 - 9 - 11))
        assert await env.last_offset(stream_name) == 100


async def test_large_messages(broker: Broker, stream_name: str) -> None:
    """Chunks can be larger than frames."""
    bodies = [bytes([n]) * 1_000_000 for n in range(20)]
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(bodies)
        async with env.consumer(stream_name, credit=2) as consumer:
            assert await read(consumer, 20) == bodies


@pytest.mark.slow
async def test_many_publishers_and_consumers(broker: Broker, stream_name: str) -> None:
    """256 on a connection, then another one."""
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        publishers = [env.publisher(stream_name) for _ in range(260)]
        consumers = [env.consumer(stream_name) for _ in range(260)]
        things: list[Any] = [*publishers, *consumers]
        async with anyio.create_task_group() as group:
            for thing in things:
                group.start_soon(thing.__aenter__)
        counts = env.statistics()
        assert (counts["publishers"], counts["subscriptions"]) == (260, 260)
        assert counts["connections"] == 5
        async with anyio.create_task_group() as group:
            for number, publisher in enumerate(publishers):
                group.start_soon(publisher.publish, b"%d" % number)
        for consumer in consumers[::50]:
            assert sorted(map(int, await read(consumer, 260))) == list(range(260))
        async with anyio.create_task_group() as group:
            for thing in things:
                group.start_soon(thing.__aexit__, None, None, None)
        assert env.statistics()["connections"] == 1


async def test_many_tasks_on_one_publisher(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name, reference="me", max_unconfirmed=100) as publisher:

            async def send(task: int) -> None:
                for number in range(50):
                    await publisher.publish(b"%d %d" % (task, number))

            async with anyio.create_task_group() as group:
                for task in range(40):
                    group.start_soon(send, task)
        async with env.consumer(stream_name) as consumer:
            bodies = await read(consumer, 2000)
    for task in range(40):
        mine = [body for body in bodies if body.split()[0] == b"%d" % task]
        assert mine == [b"%d %d" % (task, number) for number in range(50)]


@pytest.mark.parametrize(
    ("filter_values", "unfiltered", "read"),
    [
        ([""], False, [b"none", b"empty"]),
        (["eu"], False, [b"eu"]),
        (["us"], False, []),
        (["us"], True, [b"none", b"empty"]),
        (["", "eu"], False, [b"none", b"empty", b"eu"]),
    ],
)
async def test_an_empty_filter_value_is_the_same_as_no_value(
    broker: Broker, stream_name: str, filter_values: list[str], unfiltered: bool, read: list[bytes]
) -> None:
    """The broker leaves chunks out by it: what comes before a marker that passes is compared."""
    if broker.version < (3, 13):
        pytest.skip("filtering came with 3.13")
    sent = {b"none": None, b"empty": "", b"eu": "eu", b"end": filter_values[0]}
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(
            stream_name, filter_value=lambda body: sent[body]
        ) as publisher:
            for body in sent:
                await publisher.publish(body)
        found: list[bytes] = []
        async with environment.consumer(
            stream_name, filter_values=filter_values, match=bool, match_unfiltered=unfiltered
        ) as consumer:
            async for delivery in consumer:
                found += delivery.bodies
                if found[-1] == b"end":
                    break
    assert found == [*read, b"end"]
