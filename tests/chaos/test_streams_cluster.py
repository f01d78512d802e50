"""Exactly once from stream to stream on three real nodes that are killed, and whose leaders move.

A pipeline copies what a publisher publishes meanwhile; nobody restarts anything. Afterwards each
message is in the target once, in order.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.to_thread import run_sync

from flowstream import Backoff, Message, Pipeline, Retry, StreamProducer, StreamSink
from flowstream.client import Environment
from tests.brokers.running import Broker
from tests.chaos.cluster import Nodes
from tests.support.reading import contents

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 90.0
GROUP = 100
PAUSE = 0.1


class Copying:
    """A stream that grows, and the pipeline that copies it. `published` are confirmed."""

    def __init__(self, environment: Environment, stream: str) -> None:
        self.environment = environment
        self.source, self.target = f"{stream}.in", stream
        self.published = 0
        self.ended = anyio.Event()

    async def publish(self) -> None:
        async with self.environment.publisher(self.source, reference="numbers") as publisher:
            while not self.ended.is_set():
                numbers = range(self.published, self.published + GROUP)
                await publisher.publish_many([json.dumps({"n": n}).encode() for n in numbers])
                self.published = numbers.stop
                await anyio.sleep(PAUSE)

    async def copied(self) -> int:
        last = await self.environment.last_offset(self.target)
        return 0 if last is None else last + 1

    async def recovers(self) -> None:
        """Something new is published and copied."""
        with anyio.fail_after(PATIENCE):
            published = self.published + 2 * GROUP
            while self.published < published:
                await anyio.sleep(0.1)
            while await self.copied() < published:
                await anyio.sleep(0.1)


def copy(source: str, target: str) -> Pipeline:
    pipeline = Pipeline(
        "copy", StreamProducer(source), retry=Retry(attempts=5, backoff=Backoff(0.01)),
        commit_every=500, commit_interval=0.5,
    )  # fmt: skip

    @pipeline.processor(concurrency=3)
    async def handle(message: Message[bytes]) -> None:
        if message.attempt == 1 and message.offset % 97 == 0:
            raise ValueError("this time")

    pipeline.sink("out", StreamSink(target, exactly_once=True), size=50, batch_timeout=0.05)
    return pipeline


@asynccontextmanager
async def copying(cluster: tuple[Broker, ...], stream: str) -> AsyncIterator[Copying]:
    """Copies meanwhile; checks the copy afterwards."""
    async with Environment([node.url for node in cluster], heartbeat=5) as environment:
        run = Copying(environment, stream)
        for name in (run.source, run.target):
            await environment.create_stream(name, initial_cluster_size=3)
        pipeline = copy(run.source, run.target)
        async with (
            pipeline.start(environment=environment) as running,
            anyio.create_task_group() as group,
        ):
            group.start_soon(run.publish)
            await run.recovers()
            yield run
            run.ended.set()
            with anyio.fail_after(PATIENCE):
                await running.wait_idle(1.0)
        numbers = [json.loads(body)["n"] for _, _, body in await contents(environment, run.target)]
        assert numbers == list(range(run.published))
        await environment.delete_stream(run.source)


async def leader_of(environment: Environment, stream: str) -> int:
    with anyio.fail_after(PATIENCE):
        while (found := (await environment.metadata(stream)).leader) is None:
            await anyio.sleep(0.1)
    return found.port


async def disturb(run: Copying, each: Callable[[str], Awaitable[None]]) -> None:
    for stream in (run.target, run.source):
        await each(stream)
        await run.recovers()


async def test_kills_of_the_leaders_nodes_leave_each_message_once(
    cluster: tuple[Broker, ...], stream_name: str
) -> None:
    nodes = Nodes(cluster)
    await run_sync(nodes.ensure)
    await run_sync(nodes.settle)
    try:
        async with copying(cluster, stream_name) as run:

            async def kill(stream: str) -> None:
                number = nodes.number(await leader_of(run.environment, stream))
                await run_sync(nodes.kill, number)
                await run.recovers()
                await run_sync(nodes.start, number)

            await disturb(run, kill)
    finally:
        await run_sync(nodes.ensure)


async def test_leaders_that_move_leave_each_message_once(
    cluster: tuple[Broker, ...], stream_name: str
) -> None:
    nodes = Nodes(cluster)
    async with copying(cluster, stream_name) as run:

        async def move(stream: str) -> None:
            number = nodes.number(await leader_of(run.environment, stream))
            await run_sync(nodes.move_leader, stream, (number + 1) % 3)

        await disturb(run, move)
