"""What handlers of batches may return, raise and fail."""

from __future__ import annotations

import pytest

from flowstream import Backoff
from flowstream.pipeline import Batch, Drop, Failure, Message, Retry
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


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_a_message_that_a_batch_handler_routes_fails(kind):
    """It would come nowhere. What the processor has routed is as before, in a retry too."""
    failures = []

    def handle(batch):
        for message in batch:
            if n_of(message) == 3:
                message.to("other")
            elif n_of(message) == 4:
                message.to(key="k")
            elif n_of(message) == 5 and message.attempt == 1:
                message.fail("once")

    async def as_async(batch: Batch) -> None:
        handle(batch)

    def as_sync(batch: Batch) -> None:
        handle(batch)

    pipeline = pipeline_of(10, on_failure=Drop(), retry=Retry(attempts=3, backoff=Backoff(0)))
    pipeline.processor(kinds(lambda m: m.to("default", key=1))[0])
    pipeline.batcher(size=10)(as_async if kind == "async" else as_sync)
    pipeline.batcher("other")(as_async)
    pipeline.on_failed(into(failures))
    result = await pipeline.run()
    assert result.settled == {"ok": 8, "discarded": 2}
    assert [n_of(failure.message) for failure in failures] == [3, 4]
    assert {failure.reason for failure in failures} == {
        "message.to(...) was called in a batch handler, where it cannot route any more; call it in "
        "a processor"
    }
    assert {failure.attempts for failure in failures} == {1}


def into(failures: list[Failure]):
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    return failed
