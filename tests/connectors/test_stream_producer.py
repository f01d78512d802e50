"""StreamProducer on brokers: restarted by its supervision."""

from __future__ import annotations

import anyio
import pytest

from flowstream import (
    Environment,
    IterableProducer,
    Message,
    Pipeline,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.client import Delivery
from flowstream.connectors import stream_producer
from flowstream.errors import ConfigurationError, StreamDoesNotExist
from flowstream.pipeline import SourcePartition
from tests.brokers.running import Broker
from tests.support.callbacks import nothing
from tests.support.reading import PATIENCE, numbers, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("taken", ["nothing", "half", "all"])
async def test_a_restarted_producer_goes_on_behind_the_last_message_it_took_in(
    broker: Broker, stream_name: str, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """It breaks three times: when it has handed over nothing of a delivery, half or all of it."""
    send = stream_producer.send
    deliveries = []

    async def breaking(partition: SourcePartition, delivery: Delivery) -> None:
        deliveries.append(delivery.offset)
        if len(deliveries) not in (1, 2, 4):
            await send(partition, delivery)
            return
        if taken == "half":
            middle = (len(delivery.bodies) + 1) // 2
            await partition.send(delivery.bodies[:middle], offset=delivery.offset)
        elif taken == "all":
            await send(partition, delivery)
        raise RuntimeError("broken on purpose")

    pipeline = Pipeline("restarted", StreamProducer(stream_name), max_restarts=3)
    seen: list[int] = []

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None:
        assert message.data["n"] == message.offset
        seen.append(message.offset)

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            for first in range(0, 400, 50):  # each is confirmed first: chunks of 50 at most
                await publisher.publish_many(numbers(50, first))
        monkeypatch.setattr(stream_producer, "send", breaking)
        with anyio.fail_after(PATIENCE):
            async with pipeline.start(environment=environment) as running:
                await until(lambda: len(seen) >= 400)
                running.stop()
                result = await running.wait()
        assert result.error is None
        assert result.settled == {"ok": 400}
        assert seen == list(range(400))
        assert len(deliveries) >= 5
        assert await environment.query_offset("restarted", stream_name) == 399


async def test_a_super_stream_is_no_stream_and_a_stream_is_no_super_stream(
    broker: Broker, stream_name: str
) -> None:
    """The advice to create what is missing would make a second thing of the same name."""
    if broker.version < (3, 13):
        pytest.skip("creating one takes RabbitMQ 3.13")
    plain = f"{stream_name}-plain"
    reads = Pipeline("reads", StreamProducer(stream_name))
    reads.processor(nothing)
    writes = Pipeline("writes", IterableProducer([1]))
    writes.sink("out", StreamSink(stream_name))
    parts = Pipeline("parts", SuperStreamProducer(plain))
    parts.processor(nothing)
    nowhere = Pipeline("nowhere", SuperStreamProducer(f"{stream_name}-no"))
    nowhere.processor(nothing)
    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=2)
        await environment.create_stream(plain)
        with pytest.raises(ConfigurationError, match="super stream, and only SuperStreamProducer"):
            await reads.run(environment=environment)
        with pytest.raises(ConfigurationError, match="super stream, and key= says"):
            await writes.run(environment=environment)
        with pytest.raises(StreamDoesNotExist, match='plain": it is a stream, not a super s'):
            await parts.run(environment=environment)
        with pytest.raises(StreamDoesNotExist, match="flowstream super-streams create NAME"):
            await nowhere.run(environment=environment)
