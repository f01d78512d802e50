"""What a table of features promises, and no other file shows: acks, shared limits, partitions."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.pipeline import (
    Acknowledger,
    Batch,
    Drop,
    Intake,
    Message,
    Pipeline,
    Producer,
    RateLimit,
    Retry,
    RunContext,
    Sink,
    Write,
)
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio
in_threads = pytest.mark.usefixtures("threads")


class Jobs(Producer, Acknowledger):
    """Messages that are acknowledged one by one; `told` has each with its options and outcome."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.told: dict[int, tuple[str, dict[str, Any]]] = {}

    async def run(self, intake: Intake) -> None:
        partition = intake.open("jobs", acknowledger=self, commits=False)
        await partition.send(numbers(self.count))

    async def acknowledge(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        for message in messages:
            assert message.offset not in self.told
            self.told[message.offset] = outcome, dict(message.ack_options)


@in_threads
@pytest.mark.parametrize("kind", ["async", "def"])
async def test_an_acknowledger_sees_what_handlers_configured(kind: str) -> None:
    """The latest value of each option counts; retries, joint messages and failures keep them."""
    jobs = Jobs(6)
    pipeline = Pipeline("test", jobs, retry=Retry(attempts=2), on_failure=Drop())

    def configure(message: Message[dict]) -> None:
        n = n_of(message)
        if n:
            message.configure_ack(on_success="delete", by="processor")
        if n == 2:
            message.to("a", "b")
        if n == 3 and message.attempt == 1:
            raise ValueError("once")
        if n == 4:
            message.fail("for good", retry=False)
        if n == 5:
            message.settle()

    async def as_async(message: Message[dict]) -> None:
        configure(message)

    def as_sync(message: Message[dict]) -> None:
        configure(message)

    pipeline.processor(as_async if kind == "async" else as_sync)

    @pipeline.batcher("a", size=2)
    async def first(batch: Batch[dict]) -> None: ...

    @pipeline.batcher("b", size=2)
    async def second(batch: Batch[dict]) -> None: ...

    @pipeline.batcher(size=2)
    async def last(batch: Batch[dict]) -> None:
        for message in batch:
            if n_of(message) == 1:
                message.configure_ack(by="batcher")

    assert (await pipeline.run()).settled == {"ok": 5, "discarded": 1}
    options = {"on_success": "delete", "by": "processor"}
    assert jobs.told == {
        0: ("ok", {}),
        1: ("ok", options | {"by": "batcher"}),
        2: ("ok", options),
        3: ("ok", options),
        4: ("discarded", options),
        5: ("ok", options),
    }


@pytest.mark.slow
async def test_one_rate_limit_is_shared_by_all_lanes() -> None:
    class Three(Producer):
        async def run(self, intake: Intake) -> None:
            async def send(name: str) -> None:
                partition = intake.open(name, commits=False)
                for _ in range(100):
                    await partition.send(numbers(50))

            async with anyio.create_task_group() as group:
                for name in "abc":
                    group.start_soon(send, name)

    received: dict[str, int] = defaultdict(int)
    pipeline = Pipeline("test", Three(), rate_limit=RateLimit(messages=300))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        received[message.stream] += 1

    async with pipeline.start() as running:
        await anyio.sleep(10)
        assert running.statistics().received == pytest.approx(3000, rel=0.02)
        assert min(received.values()) > 500, "no partition is left out"
        running.abort()


@pytest.mark.medium
@pytest.mark.parametrize("demand", [1, 7, 1000])
async def test_no_worker_is_handed_more_than_its_demand(demand: int) -> None:
    slices: list[int] = []
    pipeline = pipeline_of(MemoryStream(numbers(3000), slices=[1000]))

    @pipeline.processor(max_demand=demand, concurrency=2)
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        slices.append(len(messages))

    assert (await pipeline.run()).settled == {"ok": 3000}
    assert sum(slices) == 3000
    assert max(slices) <= demand


@pytest.mark.parametrize("where", ["pipeline", "processor", "batcher"])
async def test_partitions_of_the_pipeline_the_processor_or_a_batcher(where: str) -> None:
    """A batch has one partition, a key is always in the same one, and its order holds."""

    def key(message: Message[dict]) -> int:
        return n_of(message) % 11

    options: dict[str, dict[str, Any]] = defaultdict(dict)
    options[where]["partition_by"] = key
    pipeline = pipeline_of(MemoryStream(numbers(500), slices=[7, 90]), **options["pipeline"])
    homes: dict[int, set[Any]] = defaultdict(set)
    seen: dict[int, list[int]] = defaultdict(list)
    handling: set[Any] = set()

    # where only the batcher has partitions, one worker in front of it keeps the order
    @pipeline.processor(concurrency=1 if where == "batcher" else 3, **options["processor"])
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.01 * (n_of(message) % 3))

    @pipeline.batcher(size=5, batch_timeout=0.5, concurrency=3, **options["batcher"])
    async def load(batch: Batch[dict]) -> None:
        assert batch.partition not in handling
        handling.add(batch.partition)
        for message in batch:
            homes[key(message)].add(batch.partition)
            seen[key(message)].append(n_of(message))
        await anyio.sleep(0.05)
        handling.remove(batch.partition)

    assert (await pipeline.run()).settled == {"ok": 500}
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert len({partition for partitions in homes.values() for partition in partitions}) == 3
    assert all(numbers == sorted(numbers) for numbers in seen.values())


@in_threads
async def test_no_more_threads_than_allowed_are_at_work() -> None:
    busy, most, lock = 0, 0, threading.Lock()
    pipeline = pipeline_of(200, max_threads=3)

    def work() -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        threading.Event().wait(0.001)
        with lock:
            busy -= 1

    @pipeline.processor(concurrency=5, max_demand=1)
    def handle(message: Message[dict]) -> None:
        work()

    @pipeline.batcher(size=2, concurrency=5)
    def load(batch: Batch[dict]) -> None:
        work()

    assert (await pipeline.run()).settled == {"ok": 200}
    assert most == 3


class Written(Sink):
    """A sink that keeps the data of its batches."""

    def __init__(self) -> None:
        self.data: list[Any] = []

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Write]:
        async def write(batch: Batch[Any]) -> None:
            self.data += [message.data for message in batch.messages]

        yield write


async def test_batches_without_a_processor() -> None:
    """Bodies are decoded to what the batcher's annotation says; what does not decode fails."""
    source = MemoryStream([*numbers(3), b"no json", *numbers(2)])
    pipeline = pipeline_of(source, on_failure=Drop())
    seen: list[int] = []

    @pipeline.batcher(size=2)
    async def keep(batch: Batch[dict[str, int]]) -> None:
        seen.extend(map(n_of, batch.messages))

    result = await pipeline.run()
    assert seen == [0, 1, 2, 0, 1]
    assert (result.settled["ok"], result.settled["discarded"]) == (5, 1)
    assert source.stored == {"orders": 5}


async def test_a_sink_without_a_processor_gets_bodies() -> None:
    pipeline, sink = pipeline_of(3), Written()
    pipeline.sink("copy", sink)
    await pipeline.run()
    assert sink.data == numbers(3)
