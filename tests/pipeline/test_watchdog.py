"""A handler that does not come back is named once, with where it hangs."""

from __future__ import annotations

import logging

import anyio
import pytest

from flowstream.pipeline import Batch, Message
from flowstream.telemetry import HandlerStuck
from tests.pipeline.support import MemoryStream, Recorder, n_of, numbers, pipeline_of, when

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

    @pipeline.batcher("load", size=5, timeout=0.1)
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
    assert f"handler of {stage!r} has not come back for " in caplog.text
    assert "in hangs_here" in caplog.text
