"""Order holds per partition to the batch handler, through failures, retries and resizing."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from enum import StrEnum

import anyio
import pytest

from flowstream.errors import Halted
from flowstream.pipeline import Backoff, Batch, Drop, Message, Pipeline, Retry
from flowstream.testing import threads_take_time
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio

KEYS = 7


def key_of(message):
    return n_of(message) % KEYS


def per_key(seen):
    lines = defaultdict(list)
    for n in seen:
        lines[n % KEYS].append(n)
    return lines


def in_order(seen):
    return all(line == sorted(line) for line in per_key(seen).values())


@pytest.mark.medium
@pytest.mark.parametrize("level", ["pipeline", "processor"])
async def test_order_per_key_reaches_the_batch_handler(level):
    random.seed(5)
    stored, handling = [], set()
    options = {"partition_by": key_of}
    pipeline = pipeline_of(
        MemoryStream(numbers(600), slices=[1, 3, 50, 200]),
        **(options if level == "pipeline" else {}),
    )

    @pipeline.processor(concurrency=8, **(options if level == "processor" else {}))
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(random.random() / 10)

    @pipeline.batcher(size=5, batch_timeout=0.3, concurrency=3)
    async def store(batch: Batch[dict]) -> None:
        assert batch.partition not in handling
        assert {key_of(m) % 3 for m in batch} == {batch.partition}
        handling.add(batch.partition)
        await anyio.sleep(random.random())
        stored.extend(n_of(m) for m in batch)
        handling.remove(batch.partition)

    assert (await pipeline.run()).settled == {"ok": 600}
    assert sorted(stored) == list(range(600))
    assert in_order(stored)


class Region(StrEnum):
    EU = "eu"


async def test_keys_that_are_equal_are_one_key_whatever_their_types():
    """A text and a StrEnum went to two workers of a batcher, one of which overtook the other."""
    stored = []
    pipeline = pipeline_of(60)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.batcher(
        size=5, concurrency=8, partition_by=lambda m: "eu" if n_of(m) % 2 else Region.EU
    )
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(1 if n_of(batch.messages[0]) % 2 else 2)
        stored.extend(n_of(m) for m in batch)

    assert (await pipeline.run()).settled == {"ok": 60}
    assert stored == list(range(60))


async def test_one_worker_keeps_the_order_of_the_stream_through_retries():
    handled, stored = [], []
    pipeline = pipeline_of(200, retry=Retry(attempts=3), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) % 13 == 5 and message.attempt < 3:
            raise ValueError("again")
        handled.append(n_of(message))

    @pipeline.batcher(size=7)
    async def store(batch: Batch[dict]) -> None:
        if 50 in [n_of(m) for m in batch] and batch.attempt < 3:
            raise ValueError("again")
        stored.extend(n_of(m) for m in batch)

    assert (await pipeline.run()).settled == {"ok": 200}
    assert handled == stored == list(range(200))


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_a_retry_holds_up_its_own_key_only(kind, threads):
    handled = []
    pipeline = pipeline_of(
        140, partition_by=key_of, retry=Retry(attempts=5, backoff=Backoff(initial=10))
    )

    def decide(message):
        if n_of(message) == 3 and message.attempt < 3:
            raise ValueError("again")
        handled.append(n_of(message))

    async def as_async(message: Message[dict]) -> None:
        decide(message)

    def as_sync(message: Message[dict]) -> None:
        decide(message)

    pipeline.processor(concurrency=4)(as_async if kind == "async" else as_sync)
    async with pipeline.start() as running:
        with threads_take_time(running.threads):
            await anyio.sleep(2)
            assert sorted(handled) == [n for n in range(140) if n % KEYS != 3]
            statistics = running.statistics()
            assert (statistics.stages[0].parked, statistics.stages[0].waiting) == (1, 19)
            result = await running.wait()
    assert result.settled == {"ok": 140}
    assert result.retried == 2
    assert in_order(handled)


async def test_without_order_nothing_waits_for_a_retry():
    handled = []
    pipeline = pipeline_of(100, retry=Retry(attempts=2, backoff=Backoff(initial=10)))

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 3 and message.attempt == 1:
            message.fail("again")
        else:
            handled.append(n_of(message))

    result = await pipeline.run()
    assert result.settled == {"ok": 100}
    assert handled[-1] == 3
    assert sorted(handled) == list(range(100))


async def test_batches_of_one_key_are_never_handled_at_the_same_time():
    handling, most = set(), 0
    pipeline = pipeline_of(60)

    @pipeline.processor(concurrency=4)
    async def route(message: Message[dict]) -> None:
        message.to(key=n_of(message) % 3)

    @pipeline.batcher(size=2, concurrency=8)
    async def store(batch: Batch[dict]) -> None:
        nonlocal most
        assert batch.key not in handling
        handling.add(batch.key)
        most = max(most, len(handling))
        await anyio.sleep(1)
        handling.remove(batch.key)

    assert (await pipeline.run()).settled == {"ok": 60}
    assert most == 3


async def test_a_failing_batch_keeps_its_place_and_holds_up_no_other_key():
    stored = []
    pipeline = pipeline_of(30, retry=Retry(attempts=3, backoff=Backoff(initial=5)))

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=n_of(message) % 3)

    @pipeline.batcher(size=2, concurrency=4)
    async def store(batch: Batch[dict]) -> None:
        if batch.key == 1 and batch.attempt < 3 and n_of(batch.messages[0]) == 4 + 3:
            assert [m.attempt for m in batch] == [batch.attempt] * batch.size
            raise ValueError("again")
        stored.append((batch.key, [n_of(m) for m in batch], batch.trigger))

    assert (await pipeline.run()).settled == {"ok": 30}
    assert (1, [7, 10], "retry") in stored
    for key in range(3):
        flat = [n for k, ns, _ in stored if k == key for n in ns]
        assert flat == list(range(key, 30, 3))
    after = [k for k, _, _ in stored[stored.index((1, [7, 10], "retry")) :]]
    assert set(after) == {1}


async def test_messages_failed_in_a_batch_are_retried_as_a_batch_of_their_own():
    stored = []
    pipeline = pipeline_of(10, retry=Retry(attempts=2), on_failure=Drop())
    pipeline.processor(concurrency=2)(nothing)

    @pipeline.batcher(size=5)
    async def store(batch: Batch[dict]) -> None:
        for message in batch:
            if n_of(message) in (2, 4) and batch.attempt == 1:
                message.fail("again")
            elif n_of(message) == 7:
                message.fail("never", retry=False)
        stored.append(([n_of(m) for m in batch], batch.trigger, batch.attempt))

    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}
    assert stored == [
        ([0, 1, 2, 3, 4], "size", 1),
        ([2, 4], "retry", 2),
        ([5, 6, 7, 8, 9], "size", 1),
    ]


async def nothing(message: Message[dict]) -> None:
    """Leaves the message as it is."""


async def test_a_retry_sees_the_message_as_it_was_delivered():
    seen = []
    pipeline = pipeline_of(1, retry=Retry(attempts=3))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        seen.append((dict(message.data), message.attempt))
        message.data["n"] += 1
        message.to("nowhere")
        if message.attempt < 3:
            raise ValueError("again")
        message.to("default")

    pipeline.batcher(sink)
    assert (await pipeline.run()).settled == {"ok": 1}
    assert seen == [({"n": 0}, 1), ({"n": 0}, 2), ({"n": 0}, 3)]


async def sink(batch: Batch[dict]) -> None:
    """Takes batches."""


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_halt_lets_nothing_of_the_key_pass(concurrency):
    producer = MemoryStream(numbers(300))
    pipeline = Pipeline("test", producer, partition_by=key_of, commit_every=1)
    handled = []

    @pipeline.processor(concurrency=concurrency)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 100:
            raise ValueError("stop here")
        handled.append(n_of(message))

    with pytest.raises(Halted) as caught:
        await pipeline.run()
    halted = caught.value
    assert (halted.pipeline, halted.stream, halted.offset) == ("test", "orders", 100)
    assert "ValueError: stop here" in halted.reason
    assert "`flowstream run ... --discard orders@100`" in str(halted)
    assert producer.stored == {"orders": 99}
    assert set(range(100)) <= set(handled)
    assert not {n for n in handled if n > 100 and n % KEYS == 100 % KEYS}


async def test_a_key_that_cannot_be_computed_fails_its_message():
    pipeline = pipeline_of(20, on_failure=Drop())

    @pipeline.processor(concurrency=2, partition_by=lambda m: [] if n_of(m) == 3 else n_of(m))
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.batcher(size=4, concurrency=2, partition_by=lambda m: 1 // (n_of(m) - 5))
    async def store(batch: Batch[dict]) -> None: ...

    result = await pipeline.run()
    assert result.settled == {"ok": 18, "discarded": 2}


@pytest.mark.medium
async def test_the_order_is_kept_while_the_stage_is_resized():
    random.seed(3)
    stored = []
    pipeline = pipeline_of(
        MemoryStream(numbers(800), slices=[20]), partition_by=key_of, max_in_flight=100
    )

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(random.random() / 20)

    @pipeline.batcher(size=5, batch_timeout=0.2, concurrency=2)
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(random.random() / 5)
        stored.extend(n_of(m) for m in batch)

    async with pipeline.start() as running:
        for workers in (6, 1, 3, 8, 2):
            await anyio.sleep(0.8)
            running.resize("processor", workers)
            running.resize("default", 9 - workers)
        result = await running.wait()
    assert result.settled == {"ok": 800}
    assert in_order(stored)
    assert [s.concurrency for s in running.statistics().stages] == [2, 7]


async def test_statistics_name_a_message_of_the_key_that_most_have():
    pipeline = pipeline_of(MemoryStream(numbers(400), slices=[100]))

    @pipeline.processor(concurrency=4, partition_by=lambda m: m.data["n"] % 4 and "hot")
    async def handle(message: Message[dict]) -> None: ...

    async with pipeline.start() as running:
        await running.wait()
        (stage,) = running.statistics().stages
    assert stage.hot_key is not None
    assert stage.hot_key.share == 0.75
    assert re.fullmatch(r"orders@\d+", stage.hot_key.sample or "")
