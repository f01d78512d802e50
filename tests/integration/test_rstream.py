"""rstream 1.1.1, an independent client, works against the embedded broker as against RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import rstream
from rstream import OffsetType
from rstream.compression import CompressionType

from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
FIRST = rstream.ConsumerOffsetSpecification(OffsetType.FIRST)


def account(broker: Broker) -> dict[str, Any]:
    return {
        "host": broker.host,
        "port": broker.port,
        "username": "guest",
        "password": "guest",
        "max_retries": 1,
    }


class Inbox:
    """A consumer's callback that keeps messages and their offsets until there are enough."""

    def __init__(self, count: int) -> None:
        self.messages: list[Any] = []
        self.offsets: list[int] = []
        self.streams: set[str] = set()
        self.full = asyncio.Event()
        self._count = count

    async def __call__(self, message: Any, context: rstream.MessageContext) -> None:
        self.messages.append(message)
        self.offsets.append(context.offset)
        self.streams.add(context.stream)
        if len(self.messages) >= self._count:
            self.full.set()

    async def wait(self) -> list[Any]:
        await asyncio.wait_for(self.full.wait(), PATIENCE)
        return self.messages


@asynccontextmanager
async def producing(broker: Broker, stream: str) -> AsyncIterator[rstream.Producer]:
    async with rstream.Producer(**account(broker)) as producer:
        await producer.create_stream(stream)
        yield producer


@asynccontextmanager
async def consuming(broker: Broker) -> AsyncIterator[rstream.Consumer]:
    consumer = rstream.Consumer(**account(broker))
    await consumer.start()
    running = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await consumer.close()
        running.cancel()


async def test_raw_bodies(broker: Broker, stream_name: str) -> None:
    sent = [b"%d" % each for each in range(5000)]
    async with producing(broker, stream_name) as producer:
        await producer.send_batch(stream_name, sent[:-1])
        await producer.send_wait(stream_name, sent[-1])
        inbox = Inbox(len(sent))
        async with consuming(broker) as consumer:
            await consumer.subscribe(stream_name, inbox, offset_specification=FIRST)
            assert await inbox.wait() == sent
    assert inbox.offsets == list(range(5000))


async def test_amqp_messages(broker: Broker, stream_name: str) -> None:
    async with producing(broker, stream_name) as producer:
        for each in range(3):
            message = rstream.AMQPMessage(body=b"%d" % each, application_properties={"n": each})
            await producer.send_wait(stream_name, message)
        inbox = Inbox(3)
        async with consuming(broker) as consumer:
            await consumer.subscribe(
                stream_name, inbox, decoder=rstream.amqp_decoder, offset_specification=FIRST
            )
            await inbox.wait()
    assert [(it.body, it.application_properties) for it in inbox.messages] == [
        (b"0", {b"n": 0}),
        (b"1", {b"n": 1}),
        (b"2", {b"n": 2}),
    ]
    assert inbox.offsets == [0, 1, 2]


@pytest.mark.parametrize("compression", [CompressionType.No, CompressionType.Gzip])
async def test_sub_entries(broker: Broker, stream_name: str, compression: CompressionType) -> None:
    async with producing(broker, stream_name) as producer:
        await producer.send_wait(stream_name, b"before")
        messages = [rstream.AMQPMessage(body=b"%d" % each) for each in range(100)]
        await producer.send_sub_entry(stream_name, messages, compression_type=compression)
        await producer.send_wait(stream_name, b"after")
        inbox = Inbox(102)
        async with consuming(broker) as consumer:
            await consumer.subscribe(stream_name, inbox, offset_specification=FIRST)
            found = await inbox.wait()
    for plain in (b"before", b"after"):  # rstream sends sub-entries later than what it waits for
        found.remove(plain)
    assert [rstream.amqp_decoder(each).body for each in found] == [b"%d" % n for n in range(100)]
    assert inbox.offsets == list(range(102))


@pytest.mark.parametrize("kind", list(OffsetType), ids=lambda kind: kind.name.lower())
async def test_every_kind_of_offset(broker: Broker, stream_name: str, kind: OffsetType) -> None:
    async with producing(broker, stream_name) as producer:
        for each in range(5):
            await producer.send_wait(stream_name, b"%d" % each)
        value = {OffsetType.OFFSET: 3, OffsetType.TIMESTAMP: int(time.time() * 1000) - 60_000}
        expected = {
            OffsetType.FIRST: [b"0", b"1", b"2", b"3", b"4", b"last"],
            OffsetType.LAST: [b"4", b"last"],
            OffsetType.NEXT: [b"last"],
            OffsetType.OFFSET: [b"3", b"4", b"last"],
            OffsetType.TIMESTAMP: [b"0", b"1", b"2", b"3", b"4", b"last"],
        }[kind]
        inbox = Inbox(len(expected))
        spec = rstream.ConsumerOffsetSpecification(kind, value.get(kind))
        async with consuming(broker) as consumer:
            await consumer.subscribe(stream_name, inbox, offset_specification=spec)
            await producer.send_wait(stream_name, b"last")
            assert await inbox.wait() == expected


async def test_offsets_are_stored(broker: Broker, stream_name: str) -> None:
    async with producing(broker, stream_name), consuming(broker) as consumer:
        inbox = Inbox(1)
        await consumer.subscribe(stream_name, inbox, offset_specification=FIRST)
        with pytest.raises(rstream.OffsetNotFound):
            await consumer.query_offset(stream_name, "ref")
        await consumer.store_offset(stream_name, "ref", 42)
        found = None
        for _ in range(100):
            try:
                found = await consumer.query_offset(stream_name, "ref")
                break
            except rstream.OffsetNotFound:
                await asyncio.sleep(0.05)
        assert found == 42


async def test_filtering(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("filtering came with 3.13")

    async def value_of(message: Any) -> str:
        return str(message.application_properties["region"])

    def published(region: str) -> rstream.AMQPMessage:
        return rstream.AMQPMessage(body=b"x", application_properties={"region": region})

    async with rstream.Producer(**account(broker), filter_value_extractor=value_of) as producer:
        await producer.create_stream(stream_name)
        for region in ("eu", "us", "eu"):
            await producer.send_wait(stream_name, published(region))
        inbox = Inbox(2)
        async with consuming(broker) as consumer:
            await consumer.subscribe(
                stream_name,
                inbox,
                decoder=rstream.amqp_decoder,
                offset_specification=FIRST,
                filter_input=rstream.FilterConfiguration(values_to_filter=["eu"]),
            )
            found = await inbox.wait()
    assert [it.application_properties for it in found] == [{b"region": b"eu"}] * 2
    assert inbox.offsets == [0, 2]


async def test_single_active_consumer(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 11):
        pytest.skip("single active consumers came with 3.11")
    properties = {"single-active-consumer": "true", "name": "group"}
    began: list[str] = []

    def listener(who: str) -> Callable[[bool, Any], Awaitable[Any]]:
        async def updated(is_active: bool, _: Any) -> Any:
            began.append(f"{who} {is_active}")
            return rstream.OffsetSpecification(OffsetType.FIRST, 0)

        return updated

    async with producing(broker, stream_name) as producer:
        await producer.send_wait(stream_name, b"x")
        first, second = Inbox(1), Inbox(1)
        async with consuming(broker) as two:
            async with consuming(broker) as one:
                for who, consumer, inbox in (("one", one, first), ("two", two, second)):
                    await consumer.subscribe(
                        stream_name,
                        inbox,
                        offset_specification=FIRST,
                        properties=dict(properties),
                        consumer_update_listener=listener(who),
                    )
                assert await first.wait() == [b"x"]
                assert second.messages == []
            assert await second.wait() == [b"x"]
    assert began == ["one True", "two True"]


async def test_super_stream(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("CreateSuperStream came with 3.13")

    async def key_of(message: Any) -> str:
        return str(message.application_properties["key"])

    creation = rstream.SuperStreamCreationOption(n_partitions=3)
    inbox = Inbox(50)
    async with rstream.SuperStreamProducer(
        **account(broker),
        super_stream=stream_name,
        super_stream_creation_option=creation,
        routing_extractor=key_of,
    ) as producer:
        for each in range(50):
            await producer.send(
                rstream.AMQPMessage(body=b"%d" % each, application_properties={"key": f"k{each}"})
            )
        consumer = rstream.SuperStreamConsumer(**account(broker), super_stream=stream_name)
        await consumer.start()
        await consumer.subscribe(inbox, decoder=rstream.amqp_decoder, offset_specification=FIRST)
        running = asyncio.create_task(consumer.run())
        found = await inbox.wait()
        await consumer.close()
        running.cancel()
    assert sorted(int(each.body) for each in found) == list(range(50))
    assert inbox.streams == {f"{stream_name}-{index}" for index in range(3)}
