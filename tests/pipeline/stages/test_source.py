"""A producer that fails is restarted if it can resume; what it had sent is handled once."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import anyio
import anyio.lowlevel
import pydantic
import pytest

from flowstream.errors import ConfigurationError, ConnectionFailed, SourceFailed
from flowstream.pipeline import (
    Batch,
    Intake,
    IterableProducer,
    Message,
    Pipeline,
    Producer,
)
from flowstream.pipeline.stages.source import SLICE
from tests.support.callbacks import nothing, raised
from tests.support.pipelines import MemoryStream, numbers

pytestmark = pytest.mark.anyio


@raised
async def test_a_producer_that_raises_is_restarted_and_then_ends_the_run(error):
    class Broken(MemoryStream):
        tries = 0
        resumable = True

        async def run(self, intake: Intake) -> None:
            self.tries += 1
            raise error

    producer = Broken([])
    pipeline = Pipeline("test", producer, max_restarts=2)
    pipeline.processor(nothing)
    with pytest.raises(SourceFailed) as caught:
        await pipeline.run()
    assert caught.value.__cause__ is error
    assert producer.tries == 3


def over(iterable: Any, **options: Any) -> tuple[Pipeline, list[Any]]:
    """A pipeline over an iterable, and what it has handled."""
    options = {"slice_size": 100} | options
    producer = iterable if isinstance(iterable, Producer) else IterableProducer(iterable, **options)
    pipeline = Pipeline("test", producer)
    seen: list[Any] = []

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        seen.append(message.data)

    return pipeline, seen


async def result_of(pipeline: Pipeline) -> Any:
    with anyio.fail_after(100):
        async with pipeline.start() as running:
            return await running.wait()


class HandsOver(Producer):
    """Hands its stream over while the message at offset 3 does not settle."""

    async def run(self, intake: Intake) -> None:
        partition = intake.open("orders")
        await partition.send(numbers(20))
        assert not await partition.drain(2)
        await anyio.sleep_forever()


async def test_a_hand_over_that_runs_out_of_time_says_how_many_come_again_and_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = Pipeline("test", HandsOver(), drain_timeout=1)

    @pipeline.processor(concurrency=2, max_demand=1)
    async def handle(message: Message[Any]) -> None:
        if message.offset == 3:
            await anyio.sleep_forever()

    with caplog.at_level(logging.WARNING, "flowstream"):
        async with pipeline.start() as running:
            await anyio.sleep(5)
            running.stop()
            await running.wait()
    text = next(r.getMessage() for r in caplog.records if "handed over" in r.getMessage())
    assert "orders is handed over with 1 unsettled messages (after 2 s" in text
    assert "in handlers: processor" in text
    assert "The next owner gets 17 messages again: all from offset 3 on" in text


class Lines(Producer):
    """Ten numbers, five at a time; fails in front of the second five, `failures` times."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or OSError("gone")
        self.runs = 0
        self.stored: list[int] = []

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        partition = intake.open("lines")
        for first in (0, 5):
            if first and self.failures:
                self.failures -= 1
                raise self.error
            await partition.send(numbers(10)[first : first + 5], offset=first)

    async def commit(self, stream: str, offset: int) -> None:
        self.stored.append(offset)


class Resuming(Lines):
    """The same, and it goes on where it was."""

    resumable = True

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        partition = intake.open("lines")
        while partition.next < 10:
            if partition.next and self.failures:
                self.failures -= 1
                raise self.error
            await partition.send(numbers(10)[partition.next : partition.next + 5])


@pytest.mark.parametrize("error", [OSError("gone"), ExceptionGroup("g", [OSError("gone")]),
                                   BaseExceptionGroup("g", [SystemExit(1)])])  # fmt: skip
async def test_a_producer_of_the_users_that_fails_is_not_run_again(error: BaseException) -> None:
    producer = Lines(1, error)
    pipeline, seen = over(producer)
    with pytest.raises(SourceFailed, match="Lines failed after 5 messages") as caught:
        await pipeline.run()
    assert caught.value.__cause__ is error
    assert (producer.runs, len(seen), producer.stored[-1]) == (1, 5, 4)


async def test_a_producer_that_can_resume_is_run_again_and_goes_on_behind_what_it_sent() -> None:
    producer = Resuming(3)
    pipeline, seen = over(producer)
    result = await result_of(pipeline)
    assert result.error is None
    assert result.settled == {"ok": 10}
    assert seen == numbers(10)
    assert producer.stored[-1] == 9


class Stored(Producer):
    """Ten numbers, from the one behind the offset that the last run has stored."""

    def __init__(self) -> None:
        self.stored: int | None = None
        self.began: list[int] = []

    async def run(self, intake: Intake) -> None:
        partition = intake.open("numbers", committed=self.stored)
        self.began.append(partition.next)
        await partition.send(numbers(10)[partition.next :][:4])

    async def commit(self, stream: str, offset: int) -> None:
        self.stored = offset


async def test_the_next_offset_of_a_partition_is_the_one_behind_its_stored_offset() -> None:
    producer = Stored()
    pipeline, seen = over(producer)
    for _ in range(3):
        await pipeline.run()
    assert producer.began == [0, 4, 8]
    assert seen == numbers(10)
    assert producer.stored == 9


async def test_a_producer_that_can_resume_fails_the_run_in_the_end() -> None:
    producer = Resuming(50)
    pipeline, seen = over(producer)
    with pytest.raises(SourceFailed, match="OSError: gone"):
        await pipeline.run()
    assert producer.runs == 4
    assert seen == numbers(5)
    assert producer.stored[-1] == 4


async def test_a_producer_that_says_it_resumes_and_repeats_is_refused() -> None:
    class Repeating(Lines):
        resumable = True

    pipeline, seen = over(Repeating(1))
    with pytest.raises(ConfigurationError, match="offset 0 was delivered before"):
        await pipeline.run()
    assert seen == numbers(5)


async def test_an_error_of_flowstream_ends_the_run_as_it_is() -> None:
    for error in (ConnectionFailed("x"), ExceptionGroup("g", [ConnectionFailed("x")])):
        pipeline, _ = over(Resuming(1, error))
        with pytest.raises(ConnectionFailed):
            await pipeline.run()


async def test_endless_sources_end_by_a_stop_alone() -> None:
    pipeline, seen = over(itertools.count())
    async with pipeline.start() as running:
        await anyio.sleep(0)
        running.stop()
        assert (await running.wait()).error is None
    assert seen == list(range(len(seen)))
    pipeline = Pipeline("test", MemoryStream(numbers(3)))
    pipeline.processor(nothing)
    assert (await pipeline.run()).settled == {"ok": 3}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batcher", [False, True])
async def test_data_does_not_wait_for_handlers_that_never_pause(workers, batcher) -> None:
    decoded = handled = ahead = 0

    class Order(pydantic.BaseModel):
        n: int

        @pydantic.model_validator(mode="after")
        def count(self) -> Order:
            nonlocal decoded, ahead
            decoded += 1
            ahead = max(ahead, decoded - handled)
            return self

    source = IterableProducer([b'{"n": 1}'] * 20_000)
    pipeline = Pipeline("orders", source, max_in_flight=10_000)

    @pipeline.processor(concurrency=workers)
    async def take(message: Message[Order]) -> None:
        nonlocal handled
        handled += 1

    if batcher:

        @pipeline.batcher(size=1_000)
        async def store(batch: Batch[Order]) -> None:
            pass

    result = await pipeline.run()
    assert result.settled == {"ok": 20_000}
    assert ahead <= 2 * SLICE


async def test_messages_wait_for_handlers_that_pause() -> None:
    pipeline = Pipeline("orders", IterableProducer([b""] * 20_000), max_in_flight=5_000)

    @pipeline.processor(concurrency=10)
    async def take(message: Message[bytes]) -> None:
        await anyio.sleep(0.001)

    async with pipeline.start() as running:
        await running.wait()
        assert running.statistics().highest_in_flight == 5_000


class Row(list[Any]):
    """A list of a user's class, whose slices are of no class of lists."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return tuple(found) if isinstance(index, slice) else found


@pytest.mark.parametrize("kind", [list, tuple, Row])
@pytest.mark.parametrize("workers", [0, 1, 4])
async def test_bodies_may_be_sent_in_any_kind_of_list(kind: Any, workers: int) -> None:
    class Sends(Producer):
        async def run(self, intake: Intake) -> None:
            partition = intake.open("s")
            for first in range(0, 3_000, 300):
                await partition.send(kind(b"%d" % n for n in range(first, first + 300)))

    pipeline, seen = Pipeline("test", Sends()), []
    if workers:

        @pipeline.processor(concurrency=workers)
        async def handle(message: Message[bytes]) -> None:
            if message.offset % 7 == 0:
                await anyio.lowlevel.checkpoint()

    @pipeline.batcher(size=1000)
    async def take(batch: Batch[bytes]) -> None:
        assert len(batch.raw) == len(batch.data) == batch.size
        seen.extend(batch.data)

    result = await pipeline.run()
    assert result.settled == {"ok": 3_000}
    assert sorted(map(int, seen)) == [*range(3_000)]
