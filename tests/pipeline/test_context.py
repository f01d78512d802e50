"""The lifespan of a pipeline gives handlers their resources, and its end is bounded."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

from flowstream.errors import ConfigurationError
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


async def test_a_lifespan_that_is_no_async_context_manager_is_named():
    @contextmanager
    def not_async():
        yield 1

    pipeline = pipeline_of(1, lifespan=not_async)
    pipeline.processor(nothing)
    with pytest.raises(ConfigurationError, match=r"> lifespan: .*@asynccontextmanager; this one"):
        await pipeline.run()
