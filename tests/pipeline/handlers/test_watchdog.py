"""A callback that does not come back is named once, with where it hangs."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.pipeline import (
    Acknowledger,
    Batch,
    Failure,
    FailurePolicy,
    Intake,
    Message,
    OpenPolicy,
    Pipeline,
    RunContext,
    Sink,
)
from flowstream.telemetry import HandlerStuck, Received, Telemetry
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of, when

pytestmark = pytest.mark.anyio


async def hangs_here(going_on: anyio.Event) -> None:
    await going_on.wait()


@pytest.mark.parametrize("stage", ["processor", "load"])
async def test_an_async_handler_is_named_with_the_line_it_waits_in(
    stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    going_on, recorder = anyio.Event(), Recorder()
    pipeline = pipeline_of(MemoryStream(numbers(20), endless=True), stuck_after=30)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if stage == "processor" and n_of(message) == 7:
            await hangs_here(going_on)

    @pipeline.batcher("load", size=5, batch_timeout=0.1)
    async def load(batch: Batch[dict]) -> None:
        if stage == "load" and n_of(batch.messages[0]) == 5:
            await hangs_here(going_on)

    with caplog.at_level(logging.WARNING, "flowstream"):
        async with pipeline.start(telemetry=recorder.telemetry) as running:
            await anyio.sleep(29)
            assert recorder.of(HandlerStuck) == []
            await anyio.sleep(200)
            [told] = recorder.of(HandlerStuck)
            going_on.set()
            await when(lambda: running.statistics().settled == {"ok": 20})
    assert (told.pipeline, told.stage) == ("test", stage)
    assert 30 <= told.seconds <= 38
    assert "in hangs_here\n    await going_on.wait()" in told.where
    assert f"handler of {stage!r} has not returned for " in caplog.text
    assert "in hangs_here" in caplog.text
    [record] = [it for it in caplog.records if "has not returned" in it.getMessage()]
    if stage == "processor":  # what a person looks at next: this message, and their own code
        assert "s with orders@7; it is at\n" in record.getMessage()
        assert (vars(record)["stream"], vars(record)["offset"]) == ("orders", 7)
    else:
        assert "s with 5 messages; it is at\n" in record.getMessage()
    first = told.where.splitlines()[0]
    assert (__file__ in first, "in handle" in first or "in load" in first) == (True, True)


class Hangs:
    """Callbacks of every kind, one of which hangs until it is let go."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.going_on = anyio.Event()

    async def at(self, where: str) -> None:
        if where == self.where:
            await hangs_here(self.going_on)


class Source(MemoryStream):
    def __init__(self, hangs: Hangs) -> None:
        super().__init__(numbers(20), endless=True)
        self.hangs = hangs

    async def open(self, context: Any) -> None:
        await self.hangs.at("Source.open")

    async def run(self, intake: Intake) -> None:
        partition = intake.open("jobs", acknowledger=Told(self.hangs), commits=False)
        await partition.send(numbers(3))
        await super().run(intake)

    async def commit(self, stream: str, offset: int) -> None:
        await self.hangs.at("Source.commit")
        await super().commit(stream, offset)


class Told(Acknowledger):
    def __init__(self, hangs: Hangs) -> None:
        self.hangs = hangs

    async def acknowledge(self, messages: Any, outcome: str) -> None:
        await self.hangs.at("Told.acknowledge")


class Policy(FailurePolicy):
    def __init__(self, hangs: Hangs) -> None:
        self.hangs = hangs

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        await self.hangs.at("Policy.open_policy")
        yield Disposing(self.hangs)


class Disposing(OpenPolicy):
    def __init__(self, hangs: Hangs) -> None:
        self.hangs = hangs

    async def handle(self, failures: Any) -> str:
        await self.hangs.at("Policy.handle")
        return "discarded"


class Written(Sink):
    def __init__(self, hangs: Hangs) -> None:
        self.hangs = hangs

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        async def write(batch: Batch[Any]) -> None:
            await self.hangs.at("written")

        await self.hangs.at("Written.writer")
        yield write


def pipeline_that(hangs: Hangs) -> Pipeline:
    """A pipeline whose callbacks all ask whether they are the one that hangs."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await hangs.at("lifespan")
        yield

    pipeline = Pipeline(
        "test", Source(hangs), on_failure=Policy(hangs), lifespan=lifespan, stuck_after=30
    )

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        await hangs.at("prepare")

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 7:
            raise ValueError("no")

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        await hangs.at("on_failed")

    pipeline.sink("written", Written(hangs), size=5, batch_timeout=0.1)
    return pipeline


EVERYWHERE = [
    *("lifespan", "Source.open", "Source.commit", "Told.acknowledge", "Policy.open_policy"),
    *("Policy.handle", "Written.writer", "written", "prepare", "on_failed"),
]


@pytest.mark.parametrize("where", EVERYWHERE)
async def test_every_callback_that_hangs_is_named_with_the_line(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    hangs, recorder = Hangs(where), Recorder()
    pipeline = pipeline_that(hangs)

    async def let_go() -> None:
        await anyio.sleep(29)
        assert recorder.of(HandlerStuck) == []
        await anyio.sleep(200)
        told.extend(recorder.of(HandlerStuck))
        hangs.going_on.set()

    told: list[HandlerStuck] = []
    async with anyio.create_task_group() as group:
        group.start_soon(let_go)
        async with pipeline.start(telemetry=recorder.telemetry) as running:
            await anyio.sleep(300)
            assert running.statistics().settled == {"ok": 22, "discarded": 1}
    [event] = told
    assert (event.pipeline, event.stage) == ("test", where)
    assert 30 <= event.seconds <= 38
    assert "in hangs_here\n    await going_on.wait()" in event.where
    name = f"handler of {where!r}" if where == "written" else where
    assert f"pipeline 'test': {name} has not returned for 3" in caplog.text
    assert recorder.of(HandlerStuck) == told


async def test_a_drain_that_takes_too_long_names_the_callback() -> None:
    hangs = Hangs("on_failed")
    async with pipeline_that(hangs).start() as running:
        await anyio.sleep(1)
        running.stop()
        result = await running.wait()
    assert "in handlers: on_failed" in str(result.error)


@pytest.mark.parametrize("where", ["partition_by", "size", "observer", "lifespan"])
@pytest.mark.medium
@pytest.mark.usefixtures("short_collections")
async def test_what_blocks_the_event_loop_is_named_with_the_line(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In real time: the watch is a thread, since the loop cannot."""

    def block(at: str, n: int) -> None:
        if (at, n) == (where, 3):
            deadline = time.monotonic() + 20
            while "has been blocked" not in caplog.text and time.monotonic() < deadline:
                sum(range(1000))

    def key(message: Message[dict]) -> int:
        block("partition_by", n_of(message))
        return 0

    def size(message: Message[dict], count: int) -> tuple[bool, int]:
        block("size", n_of(message))
        return count == 5, count + 1

    class Observer:
        def observe(self, event: Any) -> None:
            block("observer", 3 if isinstance(event, Received) else 0)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        block("lifespan", 3)
        yield

    pipeline = pipeline_of(10, partition_by=key, lifespan=lifespan, stuck_after=0.2)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.batcher(size=(0, size))
    async def load(batch: Batch[dict]) -> None: ...

    telemetry = Telemetry(Observer())
    assert (await pipeline.run(telemetry=telemetry)).settled == {"ok": 10}
    assert "the event loop has been blocked" in caplog.text
    assert "in block\n" in caplog.text
