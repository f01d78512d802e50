"""Messages go to the batchers they are routed to, and to the only one without a route."""

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


async def test_routing_to_named_batchers_and_to_an_unknown_one():
    got: dict[str, list[int]] = {"eu": [], "default": []}
    failures = []
    pipeline = pipeline_of(20, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        if n_of(message) % 2:
            message.to("eu")
        if n_of(message) == 4:
            message.to("mars")

    for name in got:

        @pipeline.batcher(name, size=4)
        async def store(batch: Batch[dict]) -> None:
            got[batch.batcher].extend(n_of(m) for m in batch)

    pipeline.on_failed(lambda failure: failures.append(failure))
    assert (await pipeline.run()).settled == {"ok": 19, "discarded": 1}
    assert got == {"eu": list(range(1, 20, 2)), "default": [n for n in range(0, 20, 2) if n != 4]}
    assert "no batcher named 'mars'; there are 'eu', 'default'" in failures[0].reason


async def test_a_route_of_a_pipeline_without_batchers_fails_its_message():
    failures = []
    pipeline = pipeline_of(20, on_failure=Drop())

    @pipeline.processor(concurrency=2, partition_by=n_of)
    async def route(message: Message[dict]) -> None:
        message.to(*(["eu"] if n_of(message) == 4 else []), key="a", flush=True)

    pipeline.on_failed(lambda failure: failures.append(failure))
    assert (await pipeline.run()).settled == {"ok": 19, "discarded": 1}
    assert "no batcher named 'eu'; the pipeline has none" in failures[0].reason


async def test_the_only_batcher_takes_what_is_not_routed():
    pipeline = pipeline_of(10)
    pipeline.processor(kinds(lambda m: None)[0])
    got = []

    @pipeline.batcher("eu", size=4)
    async def store(batch: Batch[dict]) -> None:
        got.append((batch.size, batch.trigger))

    await pipeline.run()
    assert got == [(4, "size"), (4, "size"), (2, "drain")]
