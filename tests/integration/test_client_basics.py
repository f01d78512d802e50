"""The client's face on every broker, on asyncio and trio: one way through everything."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import AmqpMessage, Environment, State
from flowstream.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    NotSupported,
    PreconditionFailed,
    StreamAlreadyExists,
    StreamDoesNotExist,
    VirtualHostAccessFailed,
)
from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio

PATIENCE = 20.0


def numbers(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def read(consumer: Any, messages: int) -> list[bytes]:
    """So many bodies, whose offsets are checked to be without gaps from the first on."""
    bodies: list[bytes] = []
    with anyio.fail_after(PATIENCE):
        while len(bodies) < messages:
            delivery = await anext(consumer)
            bodies += delivery.bodies
    return bodies


@pytest.mark.both_backends
async def test_from_creation_to_deletion(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url, name="basics") as env:
        assert env.state is State.OPEN
        assert not await env.stream_exists(stream_name)
        await env.create_stream(stream_name, max_length_bytes=1_000_000_000, max_age="1h")
        assert await env.stream_exists(stream_name)
        assert (await env.stream_stats(stream_name)).first_offset is None
        assert await env.last_offset(stream_name) is None
        async with env.publisher(stream_name) as publisher:
            await publisher.send(b"0")
            await publisher.publish(b"1")
            await publisher.send_many(numbers(4998, 2))
            await publisher.publish_many(numbers(1000, 5000))
            assert publisher.unconfirmed == 0
        assert await env.last_offset(stream_name) == 5999
        stats = await env.stream_stats(stream_name)
        assert stats.first_offset == 0
        assert stats.committed_chunk_id is not None
        assert 0 < stats.committed_chunk_id <= 5999
        async with env.consumer(stream_name) as consumer:
            assert await read(consumer, 6000) == numbers(6000)
            assert consumer.position == 6000
        metadata = await env.metadata(stream_name)
        assert metadata.leader is not None
        assert metadata.leader.port == broker.port
        await env.delete_stream(stream_name)
        await env.delete_stream(stream_name, missing_ok=True)
        assert not await env.stream_exists(stream_name)
        assert env.statistics()["publishers"] == env.statistics()["subscriptions"] == 0
    assert env.statistics()["tasks"] == env.statistics()["connections"] == 0


@pytest.mark.both_backends
async def test_stored_offsets(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish(b"x")
        assert await env.query_offset("me", stream_name) is None
        for offset in (0, 17, 3, -1, 4):  # -1: begin with offset 0
            await env.store_offset_verified("me", stream_name, offset)
            assert await env.query_offset("me", stream_name) == offset
        with pytest.raises(ConfigurationError, match="offset=-2: expected 0 to"):
            await env.store_offset("me", stream_name, -2)
        await env.store_offset("other", stream_name, 5)
        assert await env.query_offset("other", stream_name) == 5
        with pytest.raises(StreamDoesNotExist) as caught:
            await env.query_offset("me", f"{stream_name}.missing")
        assert caught.value.reference == "me"


async def test_errors_of_administration(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        with pytest.raises(StreamAlreadyExists, match=stream_name):
            await env.create_stream(stream_name)
        await env.create_stream(stream_name, exist_ok=True)
        with pytest.raises(PreconditionFailed, match=stream_name):
            await env.create_stream(stream_name, max_age="1h")
        missing = f"{stream_name}.missing"
        for attempt in (
            env.delete_stream(missing),
            env.stream_stats(missing),
            env.metadata(missing),
            env.last_offset(missing),
            env.partitions(missing),
            env.publisher(missing).__aenter__(),
            env.consumer(missing).__aenter__(),
        ):
            with pytest.raises(StreamDoesNotExist) as caught:
                await attempt
            assert caught.value.stream == missing


@pytest.mark.slow
async def test_what_a_wrong_address_is_told(broker: Broker) -> None:
    where = f"localhost:{broker.port}"
    with pytest.raises(AuthenticationFailed, match="password") as caught:
        await Environment(f"rabbitmq-stream://guest:s3cr3t@{where}").__aenter__()
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(VirtualHostAccessFailed, match='virtual host "nope"'):
        await Environment(f"rabbitmq-stream://guest:guest@{where}/nope").__aenter__()
    with pytest.raises(ConnectionFailed, match="no broker at localhost:9"):
        await Environment("rabbitmq-stream://localhost:9").__aenter__()
    with pytest.raises(ConnectionFailed, match="cannot be resolved"):
        await Environment("rabbitmq-stream://host.invalid").__aenter__()
    with pytest.raises(ConnectionFailed, match="TLS"):
        await Environment(f"rabbitmq-stream+tls://guest:guest@{where}").__aenter__()


async def test_another_protocols_port(rabbitmq: Broker) -> None:
    url = f"rabbitmq-stream://guest:guest@localhost:{rabbitmq.amqp_port}"
    with pytest.raises(ConnectionFailed, match="this is the stream port"):
        await Environment(url).__aenter__()


async def test_pitfall_1_every_offset_begins_with_the_asked_message(
    broker: Broker, stream_name: str
) -> None:
    """Pitfall 1: inside of chunks too."""
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            for first in range(0, 3000, 1000):
                await publisher.publish_many(numbers(1000, first))
        cases: list[tuple[Any, int]] = [("first", 0), (0, 0), (1, 1), (1234, 1234), (2999, 2999)]
        for offset, first in cases:
            async with env.consumer(stream_name, offset=offset) as consumer:
                assert await read(consumer, 3000 - first) == numbers(3000 - first, first)
            resolved = await env.resolve_offset(stream_name, offset)
            assert resolved == first
        last = await env.resolve_offset(stream_name, "last")
        assert 2000 <= last <= 2999
        assert await env.resolve_offset(stream_name, "next") == 3000
        async with (
            env.consumer(stream_name, offset="last") as at_last,
            env.consumer(stream_name, offset="next") as at_next,
            env.publisher(stream_name) as publisher,
        ):
            await publisher.publish(b"3000")
            assert await read(at_last, 3001 - last) == numbers(3001 - last, last)
            assert await read(at_next, 1) == [b"3000"]


async def test_a_point_in_time(broker: Broker, stream_name: str) -> None:
    from datetime import UTC, datetime, timedelta

    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(10))
            async with env.consumer(stream_name) as consumer:
                written = (await anext(consumer)).timestamp
            while datetime.now(UTC).timestamp() * 1000 <= written + 2:
                await anyio.sleep(0.001)
            between = datetime.now(UTC)
            await publisher.publish_many(numbers(10, 10))
        async with env.consumer(stream_name, offset=between) as consumer:
            assert await read(consumer, 10) == numbers(10, 10)
        async with env.consumer(stream_name, offset=timedelta(hours=1)) as consumer:
            assert await read(consumer, 20) == numbers(20)


async def test_an_empty_stream_of_any_offset(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            consumers = [
                await env.consumer(stream_name, offset=offset).__aenter__()
                for offset in ("first", "last", "next", 0)
            ]
            await publisher.publish(b"0")
            for consumer in consumers:
                assert await read(consumer, 1) == [b"0"]
                await consumer.__aexit__(None, None, None)


async def test_amqp_messages(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        message = AmqpMessage.of(b"body", application_properties={"key": "value", "n": 7})
        async with env.publisher(stream_name) as publisher:
            await publisher.publish(message)
        async with env.consumer(stream_name) as consumer:
            got = AmqpMessage((await anext(consumer)).bodies[0])
            assert got.data == b"body"
            assert got.application_properties == {"key": "value", "n": 7}


async def test_features_of_newer_servers_are_refused_by_older_ones(
    broker: Broker, stream_name: str
) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        if broker.version >= (3, 13):
            await env.create_super_stream(f"{stream_name}.super", partitions=1)
            await env.delete_super_stream(f"{stream_name}.super")
            return
        with pytest.raises(NotSupported, match=r"3\.13"):
            await env.create_super_stream(f"{stream_name}.super")
        async with env.publisher(stream_name) as publisher:
            with pytest.raises(NotSupported, match=r"3\.13"):
                await publisher.send(b"x", filter_value="eu")
        with pytest.raises(NotSupported, match=r"3\.11"):
            await env.consumer(stream_name, reference="n", single_active=True).__aenter__()


async def test_a_stream_with_nothing_but_stored_offsets_is_empty(
    broker: Broker, stream_name: str
) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        await env.store_offset_verified("somebody", stream_name, 7)
        assert await env.last_offset(stream_name) is None
