"""What handlers of batches may return, raise and fail."""

from __future__ import annotations

import pytest

from flowstream.pipeline import (
    Batch,
    Drop,
    Message,
)
from tests.support.pipelines import n_of, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


def kinds(function):
    """The same handler as `async def` and as `def`."""

    async def as_async(message: Message[dict]):
        return function(message)

    def as_sync(message: Message[dict]):
        return function(message)

    return as_async, as_sync


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_batch_handlers_fail_all_or_some(kind):
    def handle(batch):
        batch.messages.pop()  # whatever is done to the list, every message settles
        if n_of(batch.messages[0]) == 20:
            raise ValueError("all")
        batch.messages[1].fail("some")
        batch.messages[2].drop()

    async def as_async(batch: Batch) -> None:
        handle(batch)

    def as_sync(batch: Batch) -> None:
        handle(batch)

    pipeline = pipeline_of(30, on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.batcher(size=10)(as_async if kind == "async" else as_sync)
    result = await pipeline.run()
    assert result.settled == {"ok": 16, "dropped": 2, "discarded": 12}
    assert result.failed == 12
