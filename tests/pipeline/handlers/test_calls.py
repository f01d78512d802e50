"""A handler that hangs or is cancelled from within fails what it has, and the stage goes on."""

from __future__ import annotations

import anyio
import pytest

from flowstream.pipeline import (
    Drop,
    Message,
)
from tests.support.pipelines import n_of, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


async def test_a_cancellation_that_comes_from_within_fails_the_message():
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 5:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep(1)
        if n_of(message) == 6:
            with anyio.fail_after(0.5):
                await anyio.sleep(1)
        if n_of(message) == 7:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 5)
                raise ValueError("in a group")

    pipeline = pipeline_of(10, on_failure=Drop())
    pipeline.processor(handle)
    assert (await pipeline.run()).settled == {"ok": 8, "discarded": 2}
