"""What belongs to one event loop is refused on another, by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import (
    RateLimit,
)
from tests.support.callbacks import nothing
from tests.support.pipelines import MemoryStream, pipeline_of

pytestmark = pytest.mark.anyio


CONTROLS = {
    "pause": lambda running: running.pause(),
    "resume": lambda running: running.resume(),
    "resize": lambda running: running.resize("processor", 2),
    "limit": lambda running: setattr(running, "rate_limit", RateLimit(messages=5)),
    "statistics": lambda running: running.statistics(),
    "stop": lambda running: running.stop(),
    "abort": lambda running: running.abort(),
}


def in_a_thread(function):
    """What a thread that knows no event loop gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=15)


def test_a_run_whose_loop_has_ended_cannot_be_controlled():
    pipeline = pipeline_of(3)
    pipeline.processor(nothing)

    async def run():
        async with pipeline.start() as running:
            await running.wait()
            return running

    running = anyio.run(run)
    for control in CONTROLS.values():
        control(running)  # on the thread of the loop: nothing is left to do
        with pytest.raises(ConfigurationError, match="pipeline 'test' has ended, and its event"):
            in_a_thread(lambda control=control: control(running))


@pytest.mark.parametrize(
    ("name", "arguments"), [("wait", ()), ("wait_idle", (0.1,)), ("push", ([b"{}"],))]
)
async def test_waiting_on_another_loop_is_refused_by_name(name, arguments, threads):
    pipeline = pipeline_of(MemoryStream([], endless=True))
    pipeline.processor(nothing)

    async def elsewhere():
        with pytest.raises(ConfigurationError, match=f"{name}: pipeline 'test' runs on another"):
            await getattr(running, name)(*arguments)

    async with pipeline.start() as running:
        await anyio.to_thread.run_sync(in_a_thread, lambda: anyio.run(elsewhere))
        running.stop()
