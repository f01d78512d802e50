"""`on_failed` chooses the policy of a message; a policy that fails halts the run."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from flowstream.errors import Halted, OutcomeUnknown
from flowstream.pipeline import (
    Batch,
    Drop,
    Failure,
    FailurePolicy,
    Halt,
    Message,
    OpenPolicy,
    Pipeline,
    Retry,
)
from tests.support.callbacks import raised
from tests.support.pipelines import MemoryStream, n_of, numbers

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


async def test_on_failed_chooses_the_policy_of_one_message():
    producer = MemoryStream(numbers(20))
    pipeline = Pipeline("test", producer, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) in (3, 5, 11):
            raise ValueError("x")

    @pipeline.on_failed
    async def choose(failure: Failure) -> object:
        n = failure.message.data["n"]
        if n == 5:
            raise RuntimeError("on_failed itself fails")
        return {3: None, 11: Halt()}[n]

    with pytest.raises(Halted) as caught:
        await pipeline.run()
    assert caught.value.offset == 11
    assert producer.stored == {"orders": 10}


@pytest.mark.parametrize("stage", ["processor", "batcher"])
async def test_an_error_that_ends_the_run_is_not_retried(stage: str) -> None:
    """The next attempt would meet the same, and the next run finds out sooner."""
    calls: list[int] = []
    producer = MemoryStream(numbers(3))
    pipeline = Pipeline("test", producer, retry=Retry(attempts=100), on_failure=Drop())

    def fail(messages: int) -> None:
        calls.append(messages)
        raise OutcomeUnknown("no answer to the commit")

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if stage == "processor":
            fail(1)

    @pipeline.batcher(size=3)
    async def write(batch: Batch[dict]) -> None:
        if stage == "batcher":
            fail(batch.size)

    with pytest.raises(OutcomeUnknown, match="no answer"):
        await pipeline.run()
    assert calls == ([1] * len(calls) if stage == "processor" else [3])
    assert len(calls) <= 3
    assert producer.stored == {}


@raised
async def test_a_failure_policy_that_raises_halts(error):
    class Broken(FailurePolicy):
        @asynccontextmanager
        async def open_policy(self, context):
            yield BrokenDisposer()

    class BrokenDisposer(OpenPolicy):
        async def handle(self, failures):
            raise error

    producer = MemoryStream(numbers(10))
    pipeline = Pipeline("test", producer, on_failure=Broken())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 4:
            raise ValueError("no")

    with pytest.raises(Halted):
        await pipeline.run()
    assert producer.stored == {"orders": 3}
