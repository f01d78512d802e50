"""How far a run is behind: what it has in its hands, and what its producer says is left."""

from __future__ import annotations

import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.errors import ConnectionFailed
from flowstream.pipeline import (
    Backlog,
    Intake,
    Message,
    PartitionStatistics,
    Pipeline,
    Producer,
    RunningPipeline,
    catch_up,
)
from flowstream.pipeline.running.lag import INTERVAL, MOST_PER_SECOND
from flowstream.testing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return virtual_time()


class Told(Producer):
    """Streams of which it gives the first messages, and says what is left."""

    def __init__(self, given: dict[str, int], there: dict[str, int]) -> None:
        self.given, self.there = given, there
        self.asked: list[tuple[float, str, int | None]] = []
        self.failing: Exception | None = None
        self.written: int | None = None

    def reads(self) -> list[str]:
        return [*self.there]

    async def run(self, intake: Intake) -> None:
        for stream, count in self.given.items():
            await intake.open(stream).send([b"m"] * count)
        await anyio.sleep_forever()

    async def backlog(self, stream: str, behind: int | None) -> Backlog | None:
        self.asked.append((anyio.current_time(), stream, behind))
        if self.failing is not None:
            raise self.failing
        last = self.there[stream] - 1
        done = -1 if behind is None else behind
        return Backlog(done, last, last - done, self.written, active=behind is not None)


def pipeline_of(producer: Producer, **options) -> Pipeline:
    pipeline = Pipeline("p", producer, **options)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep_forever()

    return pipeline


def partitions(running: RunningPipeline) -> dict[str, PartitionStatistics]:
    return {partition.stream: partition for partition in running.statistics().partitions}


async def test_a_full_window_does_not_hide_what_is_left():
    producer = Told({"s": 100}, {"s": 374_500})
    async with pipeline_of(producer, max_in_flight=10).start() as running:
        await anyio.sleep(1)
        assert (partitions(running)["s"].lag, partitions(running)["s"].tail) == (374_500, 374_499)
        producer.there["s"] = 400_000
        await anyio.sleep(INTERVAL)
        assert partitions(running)["s"].lag == 400_000
        running.abort()


class Left(Told):
    """Its stream `s` leaves with the broker."""

    def __init__(self) -> None:
        super().__init__({}, {"s": 20})
        self.gone = anyio.Event()

    async def run(self, intake: Intake) -> None:
        partition = intake.open("s")
        await partition.send([b"m"] * 10)
        await self.gone.wait()
        self.failing = ConnectionFailed("gone")
        await partition.drain(1)
        await anyio.sleep_forever()

    async def commit(self, stream: str, offset: int) -> None:
        """Keeps nothing."""


async def test_what_was_settled_before_the_broker_went_is_not_behind():
    producer, go = Left(), anyio.Event()
    pipeline = Pipeline("p", producer, commit_interval=0.1)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await go.wait()

    async with pipeline.start() as running:
        await anyio.sleep(0.1)
        assert partitions(running)["s"].lag == 20
        go.set()
        await anyio.sleep(0.5)
        producer.gone.set()
        await anyio.sleep(0.5)
        left = partitions(running)["s"]
        assert (left.lag, left.watermark, left.committed, left.active) == (10, 9, 9, False)
        producer.failing = None
        await anyio.sleep(INTERVAL)
        assert (partitions(running)["s"].lag, partitions(running)["s"].watermark) == (20, None)


async def test_unknown_is_none_and_nothing_is_zero():
    producer = Told({}, {"s": 0})
    producer.failing = ConnectionFailed("nobody answers")
    async with pipeline_of(producer).start() as running:
        await anyio.sleep(1)
        assert partitions(running) == {}
        producer.failing = None
        await anyio.sleep(INTERVAL)
        (partition,) = running.statistics().partitions
        assert (partition.lag, partition.lag_seconds, partition.catch_up) == (0, 0.0, 0.0)
        producer.there["s"] = 5
        await anyio.sleep(INTERVAL)
        (partition,) = running.statistics().partitions
        assert (partition.lag, partition.lag_seconds, partition.catch_up) == (5, None, None)
        producer.written = int(time.time() * 1000) - 60_000
        await anyio.sleep(INTERVAL)
        assert partitions(running)["s"].lag_seconds == pytest.approx(60, abs=5)
        assert not partitions(running)["s"].active
        running.abort()


async def test_a_producer_that_fails_to_say_ends_nothing():
    producer = Told({"s": 5}, {"s": 5})
    async with pipeline_of(producer).start() as running:
        await anyio.sleep(1)
        producer.failing = ValueError("a mistake")
        await anyio.sleep(10 * INTERVAL)
        assert partitions(running)["s"].lag == 5
        running.abort()
        assert (await running.wait()).reason == "aborted"


async def test_a_producer_that_does_not_know_leaves_it_to_the_lane():
    class Silent(Told):
        async def backlog(self, stream: str, behind: int | None) -> Backlog | None:
            return None

    async with pipeline_of(Silent({"s": 5}, {"s": 5})).start() as running:
        await anyio.sleep(1)
        assert partitions(running)["s"].lag is None
        running.abort()


@pytest.mark.parametrize("count", [1, 20, 2000])
async def test_looks_are_bounded(count):
    """Every few seconds, and however many partitions there are, so many in a second."""
    producer = Told({}, {f"s-{number}": 1 for number in range(count)})
    async with pipeline_of(producer).start() as running:
        await anyio.sleep(120)
        running.abort()
    most = 120 * min(MOST_PER_SECOND, count / INTERVAL) + count
    assert most * 0.8 <= len(producer.asked) <= most + 1


async def test_where_there_is_no_broker_not_every_partition_tries():
    producer = Told({}, {f"s-{number}": 1 for number in range(200)})
    producer.failing = ConnectionFailed("nobody answers")
    async with pipeline_of(producer).start() as running:
        await anyio.sleep(1)
        running.abort()
    assert len(producer.asked) <= 8


def test_how_long_it_takes_to_catch_up():
    assert catch_up([(0, 100), (10, 50)]) == 10
    assert catch_up([(0, 100), (5, 500), (10, 50)]) == 10
    assert catch_up([(0, 100), (10, 0)]) == 0
    assert catch_up([(0, 0)]) == 0
    assert catch_up([(0, 1000), (10, 400), (20, 300), (30, 200), (40, 100)]) == 10
    assert catch_up([(0, 1000), (10, 100), (20, 100), (30, 100), (40, 100)]) is None
    assert catch_up([(0, 100)]) is None
    assert catch_up([(0, 100), (10, 100)]) is None
    assert catch_up([(0, 100), (10, 101)]) is None
    assert catch_up([(5, 100), (5, 50)]) is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**12)), min_size=1))
def test_it_is_a_time_or_not_known(history):
    found = catch_up(sorted(history, key=lambda sample: sample[0]))
    assert found is None or found >= 0
