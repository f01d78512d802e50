"""Offsets are stored by count, by interval and at the end, only when they advance, and verified."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from flowstream.errors import CommitNotVerified, Halted
from flowstream.pipeline import (
    Intake,
    Message,
    Pipeline,
    Slice,
)
from tests.support.callbacks import nothing
from tests.support.pipelines import MemoryStream, numbers, pipeline_of

pytestmark = pytest.mark.anyio


async def test_offsets_are_committed_by_count_by_interval_and_only_when_they_advance():
    producer = MemoryStream(numbers(95), slices=[10], endless=True)
    pipeline = Pipeline("test", producer, commit_every=30, commit_interval=5)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.01)

    async with pipeline.start():
        await anyio.sleep(2)
        by_count = list(producer.commits)
        assert len(by_count) >= 3
        await anyio.sleep(4)
        assert producer.commits[-1] == ("orders", 94)
        count = len(producer.commits)
        await anyio.sleep(100)
        assert len(producer.commits) == count


async def test_a_fast_run_spaces_its_commits_by_time():
    """Each one leaves a record in the stream, which later readers have to pass."""
    producer = MemoryStream(numbers(50_000), slices=[100], endless=True)
    pipeline = Pipeline("test", producer, commit_every=1_000, max_in_flight=100)

    @pipeline.processor(slices=True, concurrency=1)
    async def handle(part: Slice[dict]) -> None:
        await anyio.sleep(len(part) / 1e6)

    async with pipeline.start():
        await anyio.sleep(0.1)
        offsets = [offset for _, offset in producer.commits]
        assert offsets[-1] == 49_999
        assert len(offsets) <= 8  # by count alone there would be 50
        steps = [after - before for before, after in pairwise(offsets)]
        assert max(steps) <= 12_000


@pytest.mark.parametrize(("every", "interval"), [(1_000_000_000, 5), (10_000, 0.01)])
async def test_the_interval_holds_whatever_the_count_is(every: int, interval: float):
    producer = MemoryStream(numbers(220), slices=[1], endless=True)
    pipeline = Pipeline("test", producer, commit_every=every, commit_interval=interval)
    handled: list[int] = []

    @pipeline.processor(concurrency=1, max_demand=1)
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(interval / 10)
        handled.append(message.offset)

    async with pipeline.start():
        for _ in range(10):
            await anyio.sleep(interval * 2)
            assert producer.commits
            assert handled[-1] - producer.commits[-1][1] <= 12


async def test_a_commit_that_fails_is_tried_again():
    class Flaky(MemoryStream):
        refuse = 2

        async def commit(self, stream: str, offset: int) -> None:
            if self.refuse:
                self.refuse -= 1
                raise ConnectionError("not now")
            await super().commit(stream, offset)

    producer = Flaky(numbers(10), endless=True)
    pipeline = Pipeline("test", producer, commit_every=1, commit_interval=2)
    pipeline.processor(nothing)
    async with pipeline.start():
        await anyio.sleep(10)
        assert producer.stored == {"orders": 9}


async def test_a_commit_that_fails_waits_for_the_interval_even_with_a_commit_for_each_message():
    class Refusing(MemoryStream):
        refuses = True

        async def commit(self, stream: str, offset: int) -> None:
            await super().commit(stream, offset)
            if self.refuses:
                raise OSError("not now")

    producer = Refusing(numbers(10), endless=True)
    pipeline = Pipeline("test", producer, commit_every=1, commit_interval=2)
    pipeline.processor(nothing)
    async with pipeline.start():
        await anyio.sleep(21)
        assert 10 <= len(producer.commits) <= 12
        producer.refuses = False


async def test_a_commit_that_failed_for_an_earlier_owner_does_not_hold_up_the_next_one():
    """The partition went, its commit failed, and it came back with nothing new to store."""

    class Moving(MemoryStream):
        seconds = -1.0

        async def commit(self, stream: str, offset: int) -> None:
            raise ConnectionError("no leader")

        async def run(self, intake: Intake) -> None:
            first = intake.open("orders-0")
            await first.send(numbers(1))
            await first.drain(60)
            again = intake.open("orders-0", committed=0)
            since = anyio.current_time()
            await again.drain(60)
            self.seconds = anyio.current_time() - since
            await anyio.sleep_forever()

    producer = Moving([], endless=True)
    pipeline = Pipeline("test", producer, commit_every=1, commit_interval=2)
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        await anyio.sleep(30)
        running.stop()
    assert 0 <= producer.seconds < 1


async def test_a_last_commit_that_fails_is_tried_again():
    class Flaky(MemoryStream):
        refusals = 3

        async def commit(self, stream: str, offset: int) -> None:
            if self.refusals:
                self.refusals -= 1
                raise OSError("not now")
            await super().commit(stream, offset)

    producer = Flaky(numbers(10))
    pipeline = pipeline_of(producer)
    pipeline.processor(nothing)
    await pipeline.run()
    assert producer.verified == [("orders", 9)]


async def test_an_offset_that_is_not_stored_is_an_error():
    class Lossy(MemoryStream):
        async def commit(self, stream: str, offset: int) -> None: ...

    pipeline = pipeline_of(Lossy(numbers(10)))
    pipeline.processor(nothing)
    with pytest.raises(CommitNotVerified):
        await pipeline.run()


@pytest.mark.parametrize("stored", [-1, None, 3])
async def test_a_run_that_settles_nothing_leaves_the_stored_offset_as_it_is(stored: int | None):
    producer = MemoryStream(numbers(10))
    if stored is not None:
        producer.stored["orders"] = stored
    pipeline = pipeline_of(producer)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise ValueError("always")

    with pytest.raises(Halted) as caught:
        await pipeline.run()
    assert caught.value.offset == (0 if stored is None else stored + 1)
    assert producer.stored.get("orders") == stored
    assert (producer.commits, producer.verified) == ([], [])


@pytest.mark.parametrize("again", [-1, 4])
async def test_a_restarted_producer_with_an_older_offset_sets_nothing_back(again: int):
    """-1 is an offset like any other: not even offset 0 is settled."""

    class Restarting(MemoryStream):
        resumable = True
        runs = 0

        async def run(self, intake: Intake) -> None:
            self.runs += 1
            if self.runs == 1:
                await super().run(intake)
                await anyio.sleep(10)
                raise RuntimeError("once")
            intake.open(self.stream, committed=again)

    producer = Restarting(numbers(10), slices=[5])
    producer.stored["orders"] = again
    pipeline = pipeline_of(producer)
    pipeline.processor(nothing)
    result = await pipeline.run()
    assert result.committed == {"orders": 9}
    assert producer.verified == [("orders", 9)]
