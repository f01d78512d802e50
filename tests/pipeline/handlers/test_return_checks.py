"""What callbacks must not return fails its message, and nothing else."""

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


async def coroutine():
    pass


@pytest.mark.parametrize("kind", [0, 1], ids=["async", "def"])
@pytest.mark.parametrize(
    "returned",
    [lambda: Message.new({}), coroutine, lambda: (c for c in "")],
    ids=["message", "coroutine", "generator"],
)
async def test_returns_that_cannot_be_meant_fail_the_message(kind, returned):
    pipeline = pipeline_of(10, on_failure=Drop())
    pipeline.processor(kinds(lambda m: returned() if n_of(m) == 3 else m)[kind])
    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}


@pytest.mark.parametrize("kind", ["async", "def"])
@pytest.mark.parametrize("answer", ["batch", "none", "messages", "few", "number", "coroutine"])
async def test_what_batch_handlers_return(kind, answer):
    def handle(batch):
        return {
            "batch": lambda: batch, "none": lambda: None, "messages": lambda: batch.messages,
            "few": lambda: batch.messages[:1], "number": lambda: 10, "coroutine": coroutine,
        }[answer]()  # fmt: skip

    async def as_async(batch: Batch) -> object:
        return handle(batch)

    def as_sync(batch: Batch) -> object:
        return handle(batch)

    failures = []
    pipeline = pipeline_of(10, on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.batcher(size=5)(as_async if kind == "async" else as_sync)
    pipeline.on_failed(lambda failure: failures.append(failure))
    outcome = "ok" if answer in ("batch", "none") else "discarded"
    assert (await pipeline.run()).settled == {outcome: 10}
    assert {f.phase for f in failures} <= {"batch"}
    assert [f.reason for f in failures if "it returns nothing" not in f.reason] == []
