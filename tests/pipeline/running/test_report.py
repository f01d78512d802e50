"""A run can be read at any time: before its stages exist, while they work, and afterwards."""

from __future__ import annotations

import anyio
import pytest

from flowstream.pipeline import Batch, Drop, IterableProducer, Message, Pipeline
from flowstream.pipeline.running.report import snapshot
from flowstream.pipeline.running.run import Run
from flowstream.telemetry import Event, HandlerDone, Telemetry
from tests.support.pipelines import MemoryStream, numbers, pipeline_of

pytestmark = pytest.mark.anyio


async def test_a_run_is_read_before_during_and_after() -> None:
    pipeline = pipeline_of(MemoryStream(numbers(30), slices=[10], endless=True))
    entered, release = anyio.Event(), anyio.Event()

    @pipeline.processor(max_demand=5)
    async def handle(message: Message[dict[str, int]]) -> None:
        entered.set()
        await release.wait()

    @pipeline.batcher(size=7, batch_timeout=3.0)
    async def store(batch: Batch[dict[str, int]]) -> None: ...

    run = Run(pipeline.declaration, url=None, environment=None, telemetry=None, tune_gc=False)
    before = snapshot(run)
    assert (before.phase, before.stages, before.partitions, before.source) == (
        "starting", (), (), {},
    )  # fmt: skip
    async with anyio.create_task_group() as group:
        group.start_soon(run.main)
        await entered.wait()
        await anyio.sleep(100)
        during = snapshot(run)
        release.set()
        run.stop()
    processor, batcher = during.stages
    assert (during.phase, during.received, during.in_flight) == ("running", 30, 30)
    assert (processor.kind, processor.busy, batcher.kind, batcher.busy) == (
        "processor", 1, "batcher", 0,
    )  # fmt: skip
    assert processor.longest == pytest.approx(100, abs=10)
    assert 25 <= processor.waiting <= 29
    assert during.batch_timeout == 3.0
    after = snapshot(run)
    assert (after.phase, after.settled, after.in_flight) == ("stopped", {"ok": 30}, 0)
    await anyio.sleep(10)
    assert snapshot(run).uptime == after.uptime, "a run that is over gets no older"


async def test_every_count_has_what_fails_without_a_handler() -> None:
    """A message without a batcher, or without a key: `failed` of its stage left it out."""
    done: list[HandlerDone] = []

    class Seen:
        def observe(self, event: Event, /) -> None:
            if isinstance(event, HandlerDone):
                done.append(event)

    producer = IterableProducer([{"n": number} for number in range(10)])
    pipeline = Pipeline("test", producer, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict[str, int]]) -> None:
        message.to("nowhere" if message.data["n"] % 2 else "load")

    @pipeline.batcher("load", partition_by=lambda message: 8 // (message.data["n"] - 4))
    async def load(batch: Batch[dict[str, int]]) -> None: ...

    @pipeline.batcher("other")
    async def other(batch: Batch[dict[str, int]]) -> None: ...

    async with pipeline.start(telemetry=Telemetry(Seen())) as running:
        result = await running.wait()
        statistics = running.statistics()
    assert {it.name: it.failed for it in statistics.stages} == {
        "processor": 5, "load": 1, "other": 0,
    }  # fmt: skip
    assert {it.stage: it.attempts for it in result.reasons} == {"processor": 5, "load": 1}
    assert statistics.failed == statistics.failed_attempts == 6
    assert sum(it.failed for it in done if it.stage == "processor") == 5


async def test_a_batcher_with_the_name_of_the_processor_has_figures_of_its_own() -> None:
    pipeline = Pipeline("test", IterableProducer([b"0", b"1", b"2"]), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        if message.data == b"0":
            message.fail("no")

    @pipeline.batcher("processor", size=2)
    async def load(batch: Batch[bytes]) -> None:
        raise OSError("down")

    async with pipeline.start() as running:
        await running.wait()
        statistics = running.statistics()
    assert {it.kind: it.failed for it in statistics.stages} == {"processor": 1, "batcher": 2}
