"""A run begins once at a time, and ends with what made it fail."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from flowstream import StreamProducer
from flowstream.errors import ConfigurationError, Halted, SourceFailed
from flowstream.pipeline import (
    Message,
    Pipeline,
    RunningPipeline,
    running_pipelines,
)
from flowstream.testing import MemoryEnvironment
from tests.support.callbacks import nothing
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio


async def test_cancelling_the_program_commits_what_is_settled():
    producer = MemoryStream(numbers(100))
    pipeline = Pipeline("test", producer)
    done = []

    @pipeline.processor(max_demand=1)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 60:
            await anyio.sleep_forever()
        done.append(n_of(message))

    running: RunningPipeline | None = None
    with anyio.move_on_after(5) as scope:
        async with pipeline.start() as running:
            await running.wait()
    assert scope.cancelled_caught
    assert running is not None
    result = await running.wait()
    assert (result.reason, result.settled, result.unsettled) == ("aborted", {"ok": 60}, 40)
    assert producer.stored == {"orders": 59}
    assert producer.closed == 1
    assert pipeline.running is None


async def test_an_exception_beside_the_pipeline_drains_it_and_comes_through():
    pipeline = pipeline_of(MemoryStream(numbers(10), endless=True))
    pipeline.processor(nothing)

    async def program():
        async with pipeline.start() as running:
            runs.append(running)
            await anyio.sleep(1)
            raise KeyError("mine")

    runs = []
    with pytest.raises(KeyError):
        await program()
    assert (await runs[0].wait()).settled == {"ok": 10}


async def test_a_source_that_raises_generator_exit_fails_as_with_any_other_exception():
    """It was taken for the end of the run's own coroutine, and messages in flight were given up."""

    class Ended(MemoryStream):
        async def run(self, intake):
            await intake.open("orders").send(numbers(3))
            raise GeneratorExit("no more")

    producer = Ended([])
    pipeline = Pipeline("test", producer)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(1)

    with pytest.raises(SourceFailed, match="GeneratorExit: no more"):
        await pipeline.run()
    assert producer.stored == {"orders": 2}


async def test_an_error_that_nobody_asked_for_is_raised():
    pipeline = pipeline_of(10)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise ValueError("x")

    with pytest.raises(Halted):
        async with pipeline.start():
            await anyio.sleep(1)


async def test_running_pipelines_are_listed_and_run_once_at_a_time():
    first, second = (
        Pipeline(name, MemoryStream(numbers(3), endless=True)) for name in ("first", "second")
    )
    for pipeline in (first, second):
        pipeline.processor(nothing)
    async with first.start(), second.start():
        assert [running.name for running in running_pipelines()] == ["first", "second"]
        with pytest.raises(ConfigurationError, match="running already"):
            async with first.start():
                pass
    assert running_pipelines() == ()
    assert first.running is None


async def test_a_producer_is_read_by_one_run_at_a_time():
    """It has the state of a run: the second one would take it away from the first."""
    producer, environment = StreamProducer("orders"), MemoryEnvironment({"orders": [{}] * 3})
    one, two = Pipeline("one", producer), Pipeline("two", producer)
    for pipeline in (one, two):
        pipeline.processor(nothing)
    with anyio.fail_after(30):
        async with one.start(environment=environment) as running:
            assert (await running.wait_idle(0.01)).settled == {"ok": 3}
            with pytest.raises(ConfigurationError, match=r"> producer: pipeline 'one' is running"):
                await two.run(environment=environment)
            environment.append("orders", [{}])
            assert (await running.wait_idle(0.01)).settled == {"ok": 4}
        async with two.start(environment=environment) as running:
            assert (await running.wait_idle(0.01)).settled == {"ok": 4}
