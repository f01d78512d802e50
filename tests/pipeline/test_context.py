"""The lifespan of a pipeline gives handlers their resources, and its end is bounded."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

from flowstream.errors import ConfigurationError, Halted
from flowstream.pipeline import (
    Batch,
    Message,
)
from tests.support.callbacks import nothing
from tests.support.pipelines import pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


async def test_handlers_get_the_resources_of_the_lifespan():
    events = []

    @asynccontextmanager
    async def lifespan():
        events.append("open")
        yield {"db": 1}
        events.append("close")

    pipeline = pipeline_of(4, lifespan=lifespan)

    @pipeline.processor
    async def handle(message: Message[dict], db: dict[str, int]) -> None:
        assert db == {"db": 1}

    @pipeline.batcher(size=2)
    def store(batch: Batch[dict], db: dict[str, int]) -> None:
        events.append(f"batch {db['db']}")

    await pipeline.run()
    assert events == ["open", "batch 1", "batch 1", "close"]


async def test_a_lifespan_that_hangs_at_its_end_does_not_hang_the_run():
    @asynccontextmanager
    async def lifespan():
        yield
        await anyio.sleep_forever()

    pipeline = pipeline_of(5, lifespan=lifespan)
    pipeline.processor(nothing)
    with anyio.fail_after(60):
        assert (await pipeline.run()).settled == {"ok": 5}


@asynccontextmanager
async def refreshing(error: Exception | None = None):
    """As docs/resources.md has it: a task that runs beside the handlers."""

    async def refresh() -> None:
        await anyio.sleep(30)
        if error is not None:
            raise error
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(refresh)
        yield {"tea": 250}
        group.cancel_scope.cancel()


async def test_a_task_group_of_a_lifespan_is_left_as_it_was_entered():
    pipeline = pipeline_of(5, lifespan=refreshing)
    pipeline.processor(nothing)
    assert (await pipeline.run()).settled == {"ok": 5}


async def test_a_halt_gets_through_a_task_group_of_a_lifespan():
    pipeline = pipeline_of(5, lifespan=refreshing)

    @pipeline.processor
    async def fail(message: Message[dict]) -> None:
        raise ValueError("no tea")

    with pytest.raises(Halted, match="no tea"):
        await pipeline.run()


async def test_a_background_task_that_fails_ends_the_run_with_its_error():
    error = OSError("no prices")
    pipeline = pipeline_of(5, lifespan=lambda: refreshing(error))

    @pipeline.processor
    async def wait(message: Message[dict]) -> None:
        await anyio.sleep(20)

    with anyio.fail_after(60), pytest.raises(OSError, match="no prices"):
        await pipeline.run()
    assert error.__notes__ == ["pipeline 'test': lifespan"]


async def test_a_timeout_around_the_yield_is_no_end_in_order():
    @asynccontextmanager
    async def limited():
        with anyio.move_on_after(30):
            yield

    pipeline = pipeline_of(5, lifespan=limited)

    @pipeline.processor
    async def wait(message: Message[dict]) -> None:
        await anyio.sleep(20)

    with pytest.raises(ConfigurationError, match="> lifespan: it cancelled the run"):
        await pipeline.run()


async def test_a_lifespan_that_is_no_async_context_manager_is_named():
    @contextmanager
    def not_async():
        yield 1

    pipeline = pipeline_of(1, lifespan=not_async)
    pipeline.processor(nothing)
    with pytest.raises(ConfigurationError, match=r"> lifespan: .*@asynccontextmanager; this one"):
        await pipeline.run()
