"""The lag in memory is what it is on a broker."""

from __future__ import annotations

import time

import anyio
import pytest

from flowstream import Message, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.client import StreamBacklog
from flowstream.connectors import Filter
from flowstream.pipeline.running.lag import INTERVAL
from flowstream.testing import MemoryEnvironment, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return virtual_time()


def pipeline_of(producer: StreamProducer, **options) -> Pipeline:
    pipeline = Pipeline("p", producer, commit_interval=0.1, **options)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        pass

    return pipeline


async def test_a_probe_counts_behind_an_offset():
    environment = MemoryEnvironment(chunk_size=4)
    environment.append("s", [b"yes", b"no"] * 5, timestamp=1_000)
    environment.append("s", [b"yes"], timestamp=2_000)
    probe = environment.lag_probe("s")
    assert await probe.look(-1) == StreamBacklog(10, 11, 1_000)
    assert await probe.look(2) == StreamBacklog(10, 8, 1_000)
    assert await probe.look(9) == StreamBacklog(10, 1, 2_000)
    assert await probe.look(10) == StreamBacklog(10, 0, None)
    only_yes = environment.lag_probe("s", match=lambda body: body == b"yes")
    assert await only_yes.look(2) == StreamBacklog(10, 4, 1_000)
    assert await only_yes.look(8) == StreamBacklog(10, 1, 2_000)
    environment.stream("s").truncate(8)
    assert await probe.look(-1) == StreamBacklog(10, 3, 1_000)
    assert await environment.lag_probe("empty").look(-1) == StreamBacklog(None, 0, None)


async def test_paused_idle_and_where_the_stream_ended_before_the_run():
    environment = MemoryEnvironment({"s": [b"m"] * 10})
    pipeline = pipeline_of(StreamProducer("s"))
    async with pipeline.start(environment=environment) as running:
        await anyio.sleep(INTERVAL + 1)
        (partition,) = running.statistics().partitions
        assert (partition.lag, partition.lag_seconds, partition.tail, partition.catch_up) == (
            0,
            0.0,
            9,
            0.0,
        )
        running.pause()
        environment.append("s", [b"m"] * 300, timestamp=int((time.time() - 60) * 1000))
        await anyio.sleep(INTERVAL + 1)
        (partition,) = running.statistics().partitions
        assert (partition.lag, partition.tail) == (300, 309)
        assert partition.lag_seconds == pytest.approx(60, abs=5)
        running.resume()
        await anyio.sleep(INTERVAL + 1)
        assert running.statistics().partitions[0].lag == 0
        running.stop()
    async with pipeline.start(environment=environment) as running:
        await anyio.sleep(1)
        (partition,) = running.statistics().partitions
        assert (partition.received, partition.lag, partition.tail) == (None, 0, 309)
        running.stop()


async def test_partitions_that_nothing_came_from_are_there():
    environment = MemoryEnvironment({"s-1": [b"m"] * 3})
    environment.super_stream("s", 3)
    async with pipeline_of(SuperStreamProducer("s")).start(environment=environment) as running:
        await anyio.sleep(INTERVAL + 1)
        partitions = {partition.stream: partition for partition in running.statistics().partitions}
        assert {name: partition.lag for name, partition in partitions.items()} == {
            "s-0": 0,
            "s-1": 0,
            "s-2": 0,
        }
        assert all(partition.active for partition in partitions.values())
        assert [partitions[f"s-{number}"].tail for number in range(3)] == [None, 2, None]
        running.stop()


async def test_behind_a_filter():
    environment = MemoryEnvironment({"s": [b"yes", b"no"] * 50 + [b"no"] * 500})
    producer = StreamProducer("s", filter=Filter(("yes",), lambda body: body == b"yes"))
    pipeline = pipeline_of(producer, max_in_flight=10)
    async with pipeline.start(environment=environment) as running:
        running.pause()
        await anyio.sleep(INTERVAL + 1)
        assert running.statistics().partitions[0].lag == 50
        running.resume()
        await anyio.sleep(INTERVAL + 1)
        assert running.statistics().partitions[0].lag == 0
        running.stop()
