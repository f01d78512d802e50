"""Stages are built from the end of a message's way to its begin, each with those behind it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.pipeline import Batch, Message, Pipeline, Sink
from flowstream.pipeline.running.run import Run
from flowstream.pipeline.stages.router import End, Router
from tests.support.pipelines import MemoryStream, numbers, pipeline_of

pytestmark = pytest.mark.anyio


async def built(pipeline: Pipeline) -> Run:
    run = Run(pipeline.declaration, url=None, environment=None, telemetry=None, tune_gc=False)
    await run.main()
    assert run.result().error is None
    return run


async def keep(message: Message[Any]) -> None:
    """A processor that changes nothing."""


async def store(batch: Batch[Any]) -> None:
    """A batch handler that does nothing."""


async def test_without_batchers_processed_messages_are_at_their_end() -> None:
    pipeline = pipeline_of(3)
    pipeline.processor(keep)
    stages = (await built(pipeline)).built
    assert stages.processors is not None
    assert isinstance(stages.processors.downstream, End)
    assert stages.batchers == {}
    assert stages.pools == [stages.processors]
    assert stages.source._entrance is stages.processors


async def test_stages_are_in_the_order_that_messages_meet_them() -> None:
    pipeline = pipeline_of(3)
    pipeline.processor(name="first")(keep)
    pipeline.batcher("a")(store)
    pipeline.batcher("default")(store)
    stages = (await built(pipeline)).built
    assert stages.processors is not None
    assert isinstance(stages.processors.downstream, Router)
    assert [pool.name for pool in stages.pools] == ["first", "a", "default"]
    assert [*stages.resizable] == ["first", "a", "default"]
    assert stages.resizable["a"] is stages.batchers["a"]


async def test_a_batcher_alone_is_what_the_source_hands_to() -> None:
    pipeline = pipeline_of(3)
    pipeline.batcher("only")(store)
    stages = (await built(pipeline)).built
    assert stages.processors is None
    assert stages.source._entrance is stages.batchers["only"]


async def test_a_sink_is_opened_for_the_run_and_closed_with_it() -> None:
    happened: list[str] = []

    class Kept(Sink):
        @asynccontextmanager
        async def writer(self, context: Any) -> Any:
            happened.append("opened")
            yield self.write
            happened.append("closed")

        async def write(self, batch: Batch[Any]) -> None:
            await anyio.lowlevel.checkpoint()
            happened.append(f"wrote {batch.size}")

    pipeline = pipeline_of(MemoryStream(numbers(3)))
    pipeline.sink("out", Kept(), size=3)
    stages = (await built(pipeline)).built
    assert stages.batchers["out"].processors.phase == "sink"
    assert happened == ["opened", "wrote 3", "closed"]
