"""Whatever a callback raises, its messages fail or stay unsettled; the rest goes on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import anyio
import pytest

from flowstream.errors import Halted, SourceFailed
from flowstream.pipeline import (
    Acknowledger,
    Batch,
    Drop,
    FailurePolicy,
    Intake,
    Message,
    OpenPolicy,
    Pipeline,
    Producer,
)
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio
RAISED = [ValueError("x"), SystemExit(3), asyncio.CancelledError(), BaseExceptionGroup("g", [SystemExit(1)])]  # fmt: skip # noqa: E501
raised = pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)


async def nothing(message: Message[dict]) -> None:
    """Leaves the message as it is."""


class Told(Acknowledger):
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.told: list[int] = []

    async def acknowledge(self, messages, outcome):
        if self.error is not None:
            raise self.error
        self.told.extend(m.offset for m in messages)


class Queue(Producer):
    """A source that is acknowledged message by message."""

    def __init__(self, bodies: list[bytes], acknowledger: Acknowledger) -> None:
        self.bodies = bodies
        self.acknowledger = acknowledger

    async def run(self, intake: Intake) -> None:
        partition = intake.open("queue", acknowledger=self.acknowledger, commits=False)
        await partition.send(self.bodies)


@raised
async def test_partition_by_and_batch_size_functions_that_raise(error):
    def broken(message, state=None):
        if n_of(message) == 5:
            raise error
        return hash(n_of(message)) if state is None else (state == 3, state + 1)

    for options in ({"partition_by": broken}, {"size": (0, broken)}):
        pipeline = pipeline_of(20, on_failure=Drop())
        pipeline.processor(concurrency=2)(nothing)

        @pipeline.batcher(**options)
        async def store(batch: Batch[dict]) -> None: ...

        assert (await pipeline.run()).settled == {"ok": 19, "discarded": 1}


@pytest.mark.parametrize("key", [[], {}], ids=["list", "dict"])
async def test_a_batch_key_that_cannot_be_one_fails_its_message(key):
    pipeline = pipeline_of(10, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=key if n_of(message) == 3 else n_of(message) % 2)

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None: ...

    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}


@raised
async def test_an_acknowledger_that_raises_halts_and_its_messages_stay_unsettled(error):
    pipeline = Pipeline("test", Queue(numbers(10), Told(error)))
    pipeline.processor(nothing)
    with pytest.raises(Halted, match="the acknowledger raised"):
        await pipeline.run()


@raised
async def test_a_failure_policy_that_raises_halts(error):
    class Broken(FailurePolicy):
        @asynccontextmanager
        async def open_policy(self, context):
            yield BrokenDisposer()

    class BrokenDisposer(OpenPolicy):
        async def handle(self, failures):
            raise error

    producer = MemoryStream(numbers(10))
    pipeline = Pipeline("test", producer, on_failure=Broken())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 4:
            raise ValueError("no")

    with pytest.raises(Halted):
        await pipeline.run()
    assert producer.stored == {"orders": 3}


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


async def test_a_prepare_that_hangs_is_ended_by_the_timeout_of_the_processor():
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[10]), on_failure=Drop())
    pipeline.processor(timeout=5)(nothing)

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        if n_of(messages[0]) == 0:
            await anyio.sleep_forever()

    result = await pipeline.run()
    assert result.settled["discarded"] >= 1
    assert result.unsettled == 0


async def test_a_push_from_inside_a_handler_does_not_wait_for_itself():
    got = []
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[20]), max_in_flight=2)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        got.append(n_of(message))
        if message.stream == "orders":
            await pipeline.running.push([{"n": 100 + n_of(message)}])

    with anyio.fail_after(100):
        assert (await pipeline.run()).settled == {"ok": 40}
    assert sorted(got) == [*range(20), *range(100, 120)]


async def test_a_lifespan_that_hangs_at_its_end_does_not_hang_the_run():
    @asynccontextmanager
    async def lifespan():
        yield
        await anyio.sleep_forever()

    pipeline = pipeline_of(5, lifespan=lifespan)
    pipeline.processor(nothing)
    with anyio.fail_after(60):
        assert (await pipeline.run()).settled == {"ok": 5}


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


async def test_a_resize_at_the_last_moment_does_not_keep_batches_open():
    pipeline = pipeline_of(MemoryStream(numbers(30), endless=True), drain_timeout=500)
    pipeline.processor(nothing)

    @pipeline.batcher(size=20, batch_timeout=400)
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(1)

    async with pipeline.start() as running:
        await anyio.sleep(0.5)
        running.resize("default", 3)
        before = anyio.current_time()
        running.stop()
        assert (await running.wait()).settled == {"ok": 30}
        assert anyio.current_time() - before < 60
        running.resize("default", 2)  # too late to matter, and no error
