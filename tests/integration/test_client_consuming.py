"""Consuming on every broker: back-pressure, tracking, hand-over, super streams."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowstream.client import AutoTracking, Environment, OffsetSpec
from tests.brokers.running import Broker
from tests.integration.test_client_basics import PATIENCE, numbers, read

pytestmark = pytest.mark.anyio


async def test_not_asking_stops_the_broker(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            for first in range(0, 50_000, 500):
                await publisher.publish_many(numbers(500, first))
        async with env.consumer(stream_name, credit=4) as consumer:
            bodies = (await anext(consumer)).bodies
            with anyio.fail_after(PATIENCE):
                while consumer.statistics()["buffered_chunks"] < 3:
                    await anyio.sleep(0.01)
            await env.last_offset(stream_name)
            assert consumer.statistics()["buffered_chunks"] == 3
            assert consumer.statistics()["credits"] == 0
            bodies += await read(consumer, 50_000 - len(bodies))
            assert bodies == numbers(50_000)


@pytest.mark.parametrize("credit", [1, 2, 3, 100])
async def test_any_credit_reads_everything(broker: Broker, stream_name: str, credit: int) -> None:
    """Servers send nothing while the credit is at or below half of the initial one."""
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            for first in range(0, 2000, 100):
                await publisher.publish_many(numbers(100, first))
        async with env.consumer(stream_name, credit=credit) as consumer:
            assert await read(consumer, 2000) == numbers(2000)


async def test_tracking_goes_on_behind_what_was_done(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(1000))
        tracking = AutoTracking(messages=100)
        async with env.consumer(stream_name, reference="me", tracking=tracking) as consumer:
            first = await read(consumer, 1)
        assert await env.query_offset("me", stream_name) == len(first) - 1
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(1000, 1000))
        async with env.consumer(stream_name, reference="me", tracking=tracking) as consumer:
            rest = await read(consumer, 2000 - len(first))
        assert first + rest == numbers(2000)
        stored = await env.query_offset("me", stream_name)
        assert stored == await env.last_offset(stream_name)


async def test_single_active_consumers_take_over(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 11):
        pytest.skip("single active consumers came with RabbitMQ 3.11")
    options: dict[str, Any] = {"reference": "g", "single_active": True, "tracking": AutoTracking()}
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(500))
            async with env.consumer(stream_name, **options) as second_to_come:
                first = await read(second_to_come, 500)
                async with env.consumer(stream_name, **options) as standby:
                    stands_by = not standby.active
                    await publisher.publish_many(numbers(500, 500))
                    first += await read(second_to_come, 500)
                    await second_to_come.__aexit__(None, None, None)
                    await publisher.publish_many(numbers(500, 1000))
                    rest = await read(standby, 500)
                    assert standby.active
                    assert stands_by
        assert first + rest == numbers(1500)
        stored = await env.query_offset("g", stream_name)
        assert stored == await env.last_offset(stream_name)


async def test_a_hook_says_where_the_active_one_begins(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 11):
        pytest.skip("single active consumers came with RabbitMQ 3.11")
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(300))
        asked: list[str] = []

        async def on_active(stream: str) -> OffsetSpec:
            asked.append(stream)
            return OffsetSpec.offset(123)

        options: dict[str, Any] = {"reference": "g", "single_active": True, "on_active": on_active}
        async with env.consumer(stream_name, **options) as consumer:
            assert await read(consumer, 177) == numbers(177, 123)
        assert asked == [stream_name]


def declare_super_stream(broker: Broker, name: str, partitions: int) -> None:
    """As other tools do it: an exchange whose bindings carry the partitions' order."""
    broker.api(
        "PUT",
        f"exchanges/%2F/{name}",
        {"type": "direct", "durable": True, "arguments": {"x-super-stream": True}},
    )
    for number in range(partitions):
        add_partition(broker, name, number)


def add_partition(broker: Broker, name: str, number: int) -> None:
    queue = f"{name}-{number}"
    arguments: dict[str, Any] = {"x-queue-type": "stream"}
    broker.api("PUT", f"queues/%2F/{queue}", {"durable": True, "arguments": arguments})
    broker.api(
        "POST",
        f"bindings/%2F/e/{name}/q/{queue}",
        {"routing_key": str(number), "arguments": {"x-stream-partition-order": number}},
    )


async def create_super_stream(env: Environment, broker: Broker, name: str, count: int) -> None:
    if broker.version >= (3, 13):
        await env.create_super_stream(name, partitions=count)
    else:
        await anyio.to_thread.run_sync(declare_super_stream, broker, name, count)


async def test_super_streams(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await create_super_stream(env, broker, stream_name, 3)
        partitions = [f"{stream_name}-{n}" for n in range(3)]
        assert await env.partitions(stream_name) == partitions
        assert await env.route("1", stream_name) == [partitions[1]]
        assert await env.route("nowhere", stream_name) == []
        bodies = [json.dumps({"id": f"hello{n}"}).encode() for n in range(1, 1001)]
        async with env.super_stream_publisher(
            stream_name, key=lambda body: json.loads(body)["id"]
        ) as publisher:
            await publisher.send_many(bodies[:500])
            await publisher.publish_many(bodies[500:])
        found: dict[str, list[bytes]] = {}
        options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking()}
        async with env.super_stream_consumer(stream_name, **options) as consumer:
            with anyio.fail_after(PATIENCE):
                while sum(map(len, found.values())) < 1000:
                    delivery = await anext(consumer)
                    found.setdefault(delivery.stream, []).extend(delivery.bodies)
        assert sorted(sum(found.values(), [])) == sorted(bodies)  # noqa: RUF017
        assert found[partitions[1]][:2] == [bodies[0], bodies[2]]
        for partition in partitions:
            stored = await env.query_offset("me", partition)
            assert stored == len(found[partition]) - 1
        if broker.version >= (3, 13):
            await env.delete_super_stream(stream_name)


async def test_a_partition_that_is_added_is_published_to_and_read(
    rabbitmq: Broker, stream_name: str
) -> None:
    """The partitions are read again from time to time: nobody tells when they change."""
    async with Environment(rabbitmq.url) as env:
        await create_super_stream(env, rabbitmq, stream_name, 2)
        options: dict[str, Any] = {"refresh": 0.2}
        async with (
            env.super_stream_consumer(stream_name, **options) as consumer,
            env.super_stream_publisher(stream_name, key=bytes.decode, **options) as publisher,
        ):
            await publisher.publish_many(numbers(100))
            await anyio.to_thread.run_sync(add_partition, rabbitmq, stream_name, 2)
            with anyio.fail_after(PATIENCE):
                while len(publisher.partitions) < 3:
                    await anyio.sleep(0.05)
            await publisher.publish_many(numbers(100, 100))
            assert len(publisher.statistics()) == 3
            found: list[bytes] = []
            streams: set[str] = set()
            with anyio.fail_after(PATIENCE):
                while len(found) < 200:
                    delivery = await anext(consumer)
                    found += delivery.bodies
                    streams.add(delivery.stream)
            assert sorted(map(int, found)) == list(range(200))
            assert len(streams) == 3


async def test_a_partition_that_comes_back_is_read_on(broker: Broker, stream_name: str) -> None:
    """What was buffered when a partition left does not use up the credit of its subscription."""
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    options: dict[str, Any] = {"reference": "g", "single_active": True}
    async with Environment(broker.url) as env:
        await env.create_super_stream(stream_name, partitions=2)
        moving = f"{stream_name}-1"
        async with env.publisher(moving) as publisher:
            for number in range(40):  # each in a chunk of its own: more than a consumer buffers
                await publisher.publish_many(numbers(1, number))
        async with env.super_stream_consumer(stream_name, **options) as stays:
            with anyio.fail_after(PATIENCE):
                first = await anext(stays)
                await anyio.sleep(0.5)  # the broker sends what it may
                async with env.super_stream_consumer(stream_name, **options) as passing:
                    while moving in stays.active:
                        await anyio.sleep(0.01)
                    with anyio.move_on_after(0.1):
                        await anext(stays)  # the first delivery is processed
                    while moving not in passing.active:
                        await anyio.sleep(0.01)
                assert (await anext(stays)).bodies == first.bodies  # no offset is stored


async def test_single_active_members_share_the_partitions(broker: Broker, stream_name: str) -> None:
    """Members come and go, and every message is read once."""
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    seen: list[bytes] = []
    active: dict[str, list[str]] = {}
    stop = {name: anyio.Event() for name in "abc"}

    async def member(env: Environment, name: str) -> None:
        options: dict[str, Any] = {
            "reference": "g",
            "single_active": True,
            "tracking": AutoTracking(),
        }
        async with env.super_stream_consumer(stream_name, **options) as consumer:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def until_stopped() -> None:
                        await stop[name].wait()
                        scope.cancel()

                    group.start_soon(until_stopped)
                    async for delivery in consumer:
                        seen.extend(delivery.bodies)
                        active[name] = consumer.active

    async with Environment(broker.url) as env:
        await env.create_super_stream(stream_name, partitions=3)
        async with (
            env.super_stream_publisher(stream_name, key=bytes.decode) as publisher,
            anyio.create_task_group() as group,
        ):
            for number, name in enumerate("abc"):
                group.start_soon(member, env, name)
                await publisher.publish_many(numbers(300, 300 * number))
                with anyio.fail_after(PATIENCE):
                    while len(seen) < 300 * (number + 1):
                        await anyio.sleep(0.01)
            for number, name in enumerate("ab"):
                stop[name].set()
                await publisher.publish_many(numbers(300, 900 + 300 * number))
                with anyio.fail_after(PATIENCE):
                    while len(seen) < 1200 + 300 * number:
                        await anyio.sleep(0.01)
            stop["c"].set()
        assert sorted(map(int, seen)) == list(range(1500))
        assert len(active["c"]) == 3
        await env.delete_super_stream(stream_name)


async def test_a_point_in_the_future_begins_with_what_is_written_then(
    broker: Broker, stream_name: str
) -> None:
    """Brokers take it for now; what comes in between is not delivered, but passed."""
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish(b"before")
            moment = datetime.now(UTC) + timedelta(seconds=1.5)
            async with env.consumer(stream_name, offset=moment) as consumer:
                await publisher.publish(b"too early")
                await publisher.publish(b"too early")
                await anyio.sleep(max(0, (moment - datetime.now(UTC)).total_seconds()) + 0.2)
                await publisher.publish(b"then")
                await publisher.publish(b"later")
                with anyio.fail_after(30):
                    assert await read(consumer, 2) == [b"then", b"later"]
                assert consumer.position == 5
