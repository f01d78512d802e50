"""Another number of partitions, or another key: accepted where it is safe, else an error."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, StreamProducer, StreamSink
from flowstream.errors import RoutingChanged
from flowstream.pipeline import RunResult
from flowstream.testing import MemoryEnvironment
from tests.brokers.running import Broker
from tests.support.reading import contents

pytestmark = pytest.mark.anyio
COUNT = 60


class World:
    """A stream of numbers, which a pipeline copies into a super stream of two partitions."""

    def __init__(self) -> None:
        self.memory = MemoryEnvironment(chunk_size=5)
        self.memory.append("source", [{"n": n, "half": n // 2} for n in range(COUNT)])
        self.memory.super_stream("target", 2)

    def grow(self) -> None:
        partitions = self.memory.super_stream("target")
        partitions.append(f"target-{len(partitions)}")

    def shrink(self) -> None:
        self.memory.super_stream("target").pop()

    async def run(self, key: Any = "n", **options: Any) -> RunResult:
        pipeline = Pipeline("copy", StreamProducer("source"))

        @pipeline.processor
        async def handle(message: Message[dict[str, int]]) -> None: ...

        sink = StreamSink("target", key=key, exactly_once=True, **options)
        pipeline.sink("out", sink, size=7, batch_timeout=0.01)
        with anyio.fail_after(10):
            async with pipeline.start(environment=self.memory) as running:
                await running.wait_idle(0.05)
                running.stop()
                return await running.wait()

    async def as_if_killed(self, committed: int) -> None:
        """Let the next run begin behind `committed`, as after a kill before a later commit."""
        await self.memory.store_offset("copy", "source", committed)

    def bodies(self, partition: str) -> list[bytes]:
        return self.memory.stream(partition).bodies

    def found(self) -> Counter[int]:
        partitions = ("target-0", "target-1", "target-2")
        return Counter(json.loads(body)["n"] for it in partitions for body in self.bodies(it))


def once(count: int) -> Counter[int]:
    return Counter(range(count))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.medium
async def test_a_partition_is_added_after_a_drain(world: World) -> None:
    assert (await world.run()).error is None
    world.grow()
    world.memory.append("source", [{"n": n} for n in range(COUNT, 2 * COUNT)])
    assert (await world.run()).error is None
    assert world.found() == once(2 * COUNT)
    assert world.bodies("target-2")
    await world.as_if_killed(5)  # what went elsewhere before is not published to the new partition
    assert (await world.run()).error is None
    assert world.found() == once(2 * COUNT)


@pytest.mark.medium
async def test_a_partition_is_added_while_messages_are_in_flight(world: World) -> None:
    await world.run()
    await world.as_if_killed(30)
    world.grow()
    error = (await world.run()).error
    assert isinstance(error, RoutingChanged)
    assert f"from offset 31 to {COUNT - 1}" in str(error)
    assert "let the pipeline drain" in str(error)
    assert world.found() == once(COUNT)
    world.shrink()
    assert (await world.run()).error is None
    world.grow()
    assert (await world.run()).error is None
    assert world.found() == once(COUNT)


@pytest.mark.medium
async def test_another_key_is_another_routing(world: World) -> None:
    await world.run()
    await world.as_if_killed(30)
    assert isinstance((await world.run("half")).error, RoutingChanged)
    assert world.found() == once(COUNT)
    assert (await world.run("half", reference="copy/out-2")).error is None  # the way out, as said
    assert world.found() == once(COUNT) + Counter(range(31, COUNT))


async def test_another_key_is_noticed_on_a_broker(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("the protocol creates super streams from RabbitMQ 3.13 on")
    target = f"{stream_name}.out"

    async def run(environment: Environment, key: str) -> RunResult:
        pipeline = Pipeline("copy", StreamProducer(stream_name))

        @pipeline.processor
        async def handle(message: Message[dict[str, int]]) -> None: ...

        pipeline.sink("out", StreamSink(target, key=key, exactly_once=True), batch_timeout=0.01)
        async with pipeline.start(environment=environment) as running:
            await running.wait_idle(0.2)
            running.stop()
            return await running.wait()

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await environment.create_super_stream(target, partitions=2)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many([b'{"n":%d,"half":%d}' % (n, n // 2) for n in range(20)])
        assert (await run(environment, "n")).error is None
        await environment.store_offset_verified("copy", stream_name, 9)
        assert isinstance((await run(environment, "half")).error, RoutingChanged)
        assert (await run(environment, "n")).error is None
        partitions = await environment.partitions(target)
        assert sum([len(await contents(environment, it)) for it in partitions]) == 20
        await environment.delete_super_stream(target)


async def test_a_partition_is_added_to_a_running_pipeline(world: World) -> None:
    async def grow() -> None:
        while not world.found():
            await anyio.sleep(0)
        world.grow()

    async with anyio.create_task_group() as group:
        group.start_soon(grow)
        result = await world.run()
    assert result.error is None
    assert world.found() == once(COUNT)
    assert world.bodies("target-2")
