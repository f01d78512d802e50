"""Each message is settled once, when all that handle it are done, and acknowledgers see it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from flowstream.errors import Halted
from flowstream.pipeline import (
    Acknowledger,
    Batch,
    Drop,
    Intake,
    Message,
    Pipeline,
    Producer,
    Retry,
)
from flowstream.telemetry import Failed, Settled
from tests.support.callbacks import Queue, Told, nothing, raised
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


def kinds(function):
    """The same handler as `async def` and as `def`."""

    async def as_async(message: Message[dict]):
        return function(message)

    def as_sync(message: Message[dict]):
        return function(message)

    return as_async, as_sync


async def test_a_message_in_several_batchers_settles_when_all_are_done():
    producer = MemoryStream(numbers(3))
    pipeline = Pipeline("test", producer, on_failure=Drop(), commit_every=1)
    release = anyio.Event()
    done = []

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to("a", "b")

    @pipeline.batcher("a", size=1)
    async def first(batch: Batch[dict]) -> None:
        done.append("a")
        batch.messages[0].fail("only here")

    @pipeline.batcher("b", size=1)
    async def second(batch: Batch[dict]) -> None:
        assert batch.messages[0].failed is None
        await release.wait()
        done.append("b")

    async with pipeline.start() as running:
        while len(done) < 3:
            await anyio.sleep(0.1)
        await anyio.sleep(20)
        assert running.statistics().settled == {}
        assert producer.commits == []
        release.set()
        result = await running.wait()
    assert result.settled == {"discarded": 3}
    assert result.received == 3


async def test_settle_acknowledges_before_the_end():
    producer = MemoryStream(numbers(10))
    pipeline = Pipeline("test", producer, commit_every=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        message.settle()
        message.settle()

    @pipeline.batcher(size=10)
    async def store(batch: Batch[dict]) -> None:
        raise ValueError("too late to matter for the offset")

    with pytest.raises(Halted):
        await pipeline.run()
    assert producer.stored == {"orders": 9}


async def test_no_latency_is_negative_where_the_clock_of_the_broker_is_ahead():
    """Their sum is a counter: Prometheus takes one that falls for a new one."""

    class Ahead(Producer):
        async def run(self, intake: Intake) -> None:
            partition = intake.open("orders")
            await partition.send([b"{}"], timestamp=int((time.time() + 60) * 1000))

    recorder = Recorder()
    pipeline = pipeline_of(Ahead())
    pipeline.processor(kinds(lambda m: None)[0])
    await pipeline.run(telemetry=recorder.telemetry)
    assert [event.latency for event in recorder.of(Settled)] == [0.0]


async def test_events_account_for_every_message():
    recorder = Recorder()
    pipeline = pipeline_of(100, on_failure=Drop())
    pipeline.processor(concurrency=4)(
        kinds(lambda m: m.fail("no") if n_of(m) % 10 == 0 else None)[0]
    )

    @pipeline.batcher(size=9)
    async def store(batch: Batch[dict]) -> None: ...

    await pipeline.run(telemetry=recorder.telemetry)
    settled: dict[str, int] = {}
    for event in recorder.of(Settled):
        settled[event.outcome] = settled.get(event.outcome, 0) + event.messages
    assert settled == {"ok": 90, "discarded": 10}
    assert sum(event.messages for event in recorder.of(Failed)) == 10


@raised
async def test_an_acknowledger_that_raises_halts_and_its_messages_stay_unsettled(error):
    pipeline = Pipeline("test", Queue(numbers(10), Told(error)))
    pipeline.processor(nothing)
    with pytest.raises(Halted, match="the acknowledger raised"):
        await pipeline.run()


async def test_an_acknowledger_is_told_once_of_what_was_settled_early_and_went_to_two_batchers():
    acknowledger = Told()
    pipeline = Pipeline("test", Queue(numbers(20), acknowledger), on_failure=Drop())

    @pipeline.processor(concurrency=2)
    async def route(message: Message[dict]) -> None:
        if n_of(message) % 2:
            message.settle()
        message.to("a", "b")

    for name in "ab":

        @pipeline.batcher(name, size=3)
        async def store(batch: Batch[dict]) -> None:
            if batch.batcher == "b":
                batch.messages[0].settle()

    assert (await pipeline.run()).settled == {"ok": 20}
    assert sorted(acknowledger.told) == list(range(20))


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


async def test_an_acknowledger_may_empty_the_list_that_it_is_called_with() -> None:
    class Popping(Jobs):
        async def acknowledge(self, messages: Sequence[Message[Any]], outcome: str) -> None:
            await super().acknowledge(messages, outcome)
            assert isinstance(messages, list)
            messages.clear()

    jobs = Popping(6)
    pipeline = Pipeline("test", jobs)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    result = await pipeline.run()
    assert result.settled == {"ok": 6}
    assert len(jobs.told) == 6
