"""Members of a group that subscribe in an order, and again: places change, and no message does."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import anyio
import pytest

from flowstream import Batch, Environment, Pipeline, SuperStreamProducer
from flowstream.telemetry import Event, PartitionMoved, StateChanged, Telemetry
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, numbers, until

pytestmark = pytest.mark.anyio


class Member:
    """A run of the pipeline: which partitions it reads, and which states its consumers had."""

    def __init__(self, stream: str) -> None:
        self.producer = SuperStreamProducer(stream, single_active=True)
        self.pipeline = Pipeline("shop", self.producer)
        self.reads: set[str] = set()
        self.states: set[str] = set()
        self.ending = anyio.Event()

    def observe(self, event: Event, /) -> None:
        if isinstance(event, PartitionMoved):
            (self.reads.add if event.active else self.reads.discard)(event.stream)
        elif isinstance(event, StateChanged) and event.kind == "consumer":
            self.states.add(event.state)

    async def run(self, environment: Environment) -> None:
        telemetry = Telemetry(self)
        async with self.pipeline.start(environment=environment, telemetry=telemetry) as running:
            await self.ending.wait()
            running.stop()
            await running.wait()


def reading(member: Member, partitions: set[str]) -> bool:
    return member.reads == partitions


async def test_members_change_places_under_load(broker: Broker, stream_name: str) -> None:
    """The second one subscribes when it is its turn; then the first one does so again.

    The partitions of the first and the third place go to the other member each time, and no
    consumer is ever disconnected, so that the run stays ready.
    """
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    handled: defaultdict[str, list[int]] = defaultdict(list)
    seen: set[int] = set()
    members = one, two = Member(stream_name), Member(stream_name)
    for member in members:

        @member.pipeline.batcher(size=50, batch_timeout=0.05)
        async def load(batch: Batch[dict[str, int]]) -> None:
            for message in batch.messages:
                handled[message.stream].append(message.offset)
                seen.add(message.data["n"])

    turn = anyio.Event()
    two.producer.subscribe_after(turn.wait)
    first, second, third = (f"{stream_name}-{index}" for index in range(3))
    async with Environment(broker.url) as here, Environment(broker.url) as elsewhere:
        await here.create_super_stream(stream_name, partitions=3)
        try:
            with anyio.fail_after(2 * PATIENCE):
                async with (
                    here.super_stream_publisher(stream_name, key=bytes.decode) as publisher,
                    anyio.create_task_group() as group,
                ):
                    group.start_soon(one.run, here)
                    group.start_soon(two.run, elsewhere)
                    await until(lambda: one.producer.subscribed and len(one.reads) == 3)
                    await publisher.publish_many(numbers(300))
                    assert not two.producer.subscribed
                    turn.set()
                    await until(lambda: (one.reads, two.reads) == ({first, third}, {second}))
                    await until(lambda: two.producer.subscribed)
                    for sent, again, other in ((300, one, two), (600, two, one)):
                        await publisher.send_many(numbers(300, sent))
                        await again.producer.subscribe_again()
                        await until(partial(reading, other, {first, third}))
                        await until(partial(reading, again, {second}))
                        await publisher.flush()
                    await until(lambda: len(seen) == 900)
                    for member in members:
                        member.ending.set()
            assert {*one.states, *two.states} <= {"connecting", "open", "closed"}
            assert sum(map(len, handled.values())) == 900
            assert all(offsets == sorted(offsets) for offsets in handled.values())
        finally:
            await here.delete_super_stream(stream_name)
