"""Stopping: in order, inside the deadline, and nothing committed past what is settled."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from flowstream.errors import DrainTimeout, Halted
from flowstream.pipeline import (
    Backoff,
    Batch,
    Drop,
    Message,
    Pipeline,
    RateLimit,
    Retry,
)
from flowstream.telemetry import PhaseChanged
from tests.support.callbacks import Queue, Told, nothing
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio


async def test_a_stop_finishes_what_was_taken_in_and_commits_it():
    producer, stored, recorder = MemoryStream(numbers(5000), slices=[10]), [], Recorder()
    pipeline = Pipeline("test", producer, max_in_flight=100)

    @pipeline.processor(concurrency=3)
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.01)

    @pipeline.batcher(size=30, batch_timeout=100)
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(0.1)
        stored.append((batch.size, batch.trigger))

    async with pipeline.start(telemetry=recorder.telemetry) as running:
        await anyio.sleep(1)
        running.stop()
        result = await running.wait()
    assert result.reason == "stopped"
    assert 0 < result.received < 5000
    assert result.settled == {"ok": result.received}
    assert sum(size for size, _ in stored) == result.received
    assert stored[-1][1] == "drain"
    assert producer.stored == result.committed == {"orders": result.received - 1}
    assert producer.verified[-1] == ("orders", result.received - 1)
    assert (producer.opened, producer.closed) == (1, 1)
    phases = [event.phase for event in recorder.of(PhaseChanged)]
    assert phases == ["running", "draining", "closing", "stopped"]


@pytest.mark.medium
async def test_a_stream_is_handled_exactly_once_over_many_stops():
    producer, stored = MemoryStream(numbers(1000), slices=[7]), []
    for seconds in (0.2, 0.3, 0.1, 5, 1):
        pipeline = Pipeline("test", producer, max_in_flight=50)

        @pipeline.processor(concurrency=2)
        async def handle(message: Message[dict]) -> None:
            await anyio.sleep(0.005)

        @pipeline.batcher(size=10)
        async def store(batch: Batch[dict]) -> None:
            stored.extend(n_of(m) for m in batch)

        async with pipeline.start():
            await anyio.sleep(seconds)
    assert sorted(stored) == list(range(1000))


async def test_a_handler_that_hangs_is_ended_by_the_deadline():
    producer = MemoryStream(numbers(100))
    pipeline = Pipeline("test", producer, drain_timeout=10, commit_every=1)

    @pipeline.processor(concurrency=2, max_demand=1)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 40:
            await anyio.sleep_forever()

    async with pipeline.start() as running:
        await anyio.sleep(1)
        before = anyio.current_time()
        running.stop()
        result = await running.wait()
        assert anyio.current_time() - before == pytest.approx(10, abs=0.5)
    assert result.reason == "drain timeout"
    assert isinstance(result.error, DrainTimeout)
    assert "processor" in str(result.error)
    assert producer.stored == {"orders": 39}
    assert result.unsettled >= 1


@pytest.mark.parametrize("handler", ["shielded", "swallows", "a cleanup"])
async def test_a_handler_that_outlasts_the_deadline_is_not_called_for_another_message(handler: str):
    producer, began = MemoryStream(numbers(50)), []
    pipeline = Pipeline("test", producer, drain_timeout=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        began.append(message.offset)
        if handler == "swallows":
            with contextlib.suppress(BaseException):
                await anyio.sleep(5)
        elif handler == "shielded":
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
        else:
            try:
                await anyio.sleep(5)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3)

    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.stop()
        result = await running.wait()
    assert isinstance(result.error, DrainTimeout)
    assert began == [0]
    assert (result.unsettled, producer.stored, result.seconds < 7) == (50, {}, True)


async def test_retries_that_outlast_the_deadline_are_left_to_the_next_run():
    producer = MemoryStream(numbers(20))
    pipeline = Pipeline(
        "test", producer, retry=Retry(attempts=9, backoff=Backoff(initial=100)), drain_timeout=10
    )

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 5:
            raise ValueError("again")

    async with pipeline.start() as running:
        await anyio.sleep(1)
        before = anyio.current_time()
        running.stop()
        result = await running.wait()
        assert anyio.current_time() - before < 1
    assert result.reason == "drain timeout"
    assert isinstance(result.error, DrainTimeout)
    assert "the next attempt of failed messages is due later" in str(result.error)
    assert "15 messages stay unsettled" in str(result.error)
    assert (result.settled, result.unsettled) == ({"ok": 5}, 15)
    assert producer.stored == {"orders": 4}


async def test_batch_retries_that_outlast_the_deadline_too():
    producer = MemoryStream(numbers(20))
    pipeline = Pipeline(
        "test", producer, retry=Retry(attempts=9, backoff=Backoff(initial=100)), drain_timeout=10
    )
    pipeline.processor(nothing)

    @pipeline.batcher(size=5)
    async def store(batch: Batch[dict]) -> None:
        if n_of(batch.messages[0]) == 5:
            raise ValueError("again")

    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.stop()
        result = await running.wait()
    assert isinstance(result.error, DrainTimeout)
    assert (result.settled, result.unsettled) == ({"ok": 5}, 15)
    assert producer.stored == {"orders": 4}


async def test_halting_finishes_what_is_before_the_message():
    producer, stored = MemoryStream(numbers(100)), []
    pipeline = Pipeline("test", producer)
    pipeline.processor(nothing)

    @pipeline.batcher(size=10, concurrency=5)
    async def store(batch: Batch[dict]) -> None:
        first = n_of(batch.messages[0])
        if first == 30:
            batch.messages[4].fail("bad")
        if first in (10, 20):
            await anyio.sleep(3)
        stored.append(first)

    with pytest.raises(Halted) as caught:
        await pipeline.run()
    assert caught.value.offset == 34
    assert {0, 10, 20} <= set(stored)
    assert producer.stored == {"orders": 33}


async def test_an_aborted_run_commits_what_is_settled():
    producer = MemoryStream(numbers(100))
    pipeline = Pipeline("test", producer)

    @pipeline.processor(concurrency=1)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 60:
            await anyio.sleep_forever()

    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.stop()
        await anyio.sleep(1)
        running.abort()
        result = await running.wait()
    assert result.reason == "aborted"
    assert producer.stored.get("orders", -1) <= 59
    assert producer.closed == 1


async def test_a_drain_under_a_closed_limiter_ends_at_once():
    pipeline = pipeline_of(MemoryStream(numbers(100)), rate_limit=RateLimit(messages=1))
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        await anyio.sleep(0.5)
        running.rate_limit = RateLimit(messages=0)
        await anyio.sleep(100)
        before = anyio.current_time()
        running.stop()
        result = await running.wait()
    assert anyio.current_time() - before < 1
    assert result.reason == "stopped"
    assert result.settled == {"ok": 1}


async def test_every_message_is_settled_when_everything_goes_wrong_at_the_end():
    producer = MemoryStream(numbers(50), slices=[5])
    pipeline = Pipeline(
        "test", producer, retry=Retry(attempts=2, backoff=Backoff(initial=1)), on_failure=Drop()
    )

    @pipeline.processor(concurrency=4)
    async def handle(message: Message[dict]) -> None:
        raise ValueError("always")

    async with pipeline.start() as running:
        running.stop()
        result = await running.wait()
    assert result.unsettled == 0
    assert result.settled.get("discarded", 0) == result.received


@pytest.mark.parametrize("where", ["on_failed", "acknowledger", "batch", "commit"])
async def test_a_callback_that_hangs_is_ended_by_the_drain(where):
    class Hangs(Told):
        async def acknowledge(self, messages, outcome):
            await anyio.sleep_forever()

    class NeverCommits(MemoryStream):
        async def commit(self, stream, offset):
            await anyio.sleep_forever()

    source = {"acknowledger": Queue(numbers(5), Hangs()), "commit": NeverCommits(numbers(5))}
    pipeline = Pipeline("test", source.get(where) or MemoryStream(numbers(5)), drain_timeout=5)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if where == "on_failed":
            raise ValueError("x")

    @pipeline.on_failed
    async def failed(failure):
        await anyio.sleep_forever()

    @pipeline.batcher(size=1)
    async def store(batch: Batch[dict]) -> None:
        if where == "batch":
            await anyio.sleep_forever()

    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.stop()
        with anyio.fail_after(20):
            result = await running.wait()
    assert result.error is not None


async def test_a_thread_that_a_drain_left_behind_is_named(threads):
    import threading

    release = threading.Event()
    pipeline = pipeline_of(3, drain_timeout=1)

    @pipeline.processor
    def handle(message: Message[dict]) -> None:
        release.wait(20)

    try:
        async with pipeline.start() as running:
            await anyio.sleep(0.5)
            running.stop()
            result = await running.wait()
        assert result.hung == ("processor",)
        assert result.reason == "drain timeout"
    finally:
        release.set()
