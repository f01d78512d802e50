"""Batches end by size, time and flush; a key or size that cannot be computed fails its message."""

from __future__ import annotations

import pytest

from flowstream.pipeline import (
    Batch,
    Drop,
    Message,
)
from tests.support.callbacks import nothing, raised
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


async def test_batch_keys_and_flush():
    got = []
    pipeline = pipeline_of(12)

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=n_of(message) % 3, flush=n_of(message) == 4)

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None:
        got.append((batch.key, [n_of(m) for m in batch], batch.trigger))

    assert (await pipeline.run()).settled == {"ok": 12}
    assert (1, [1, 4], "flush") in got
    assert (0, [0, 3, 6], "size") in got
    assert all(n % 3 == key for key, ns, _ in got for n in ns)


@raised
async def test_partition_by_and_batch_size_functions_that_raise(error):
    def broken(message, state=None):
        if n_of(message) == 5:
            raise error
        return hash(n_of(message)) if state is None else (state == 3, state + 1)

    for options in ({"partition_by": broken}, {"size": (0, broken)}):
        pipeline = pipeline_of(20, on_failure=Drop())
        pipeline.processor(concurrency=2)(nothing)

        @pipeline.batcher(**options)
        async def store(batch: Batch[dict]) -> None: ...

        assert (await pipeline.run()).settled == {"ok": 19, "discarded": 1}


@pytest.mark.parametrize("key", [[], {}], ids=["list", "dict"])
async def test_a_batch_key_that_cannot_be_one_fails_its_message(key):
    pipeline = pipeline_of(10, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=key if n_of(message) == 3 else n_of(message) % 2)

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None: ...

    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}


async def test_batches_without_a_processor() -> None:
    """Bodies are decoded to what the batcher's annotation says; what does not decode fails."""
    source = MemoryStream([*numbers(3), b"no json", *numbers(2)])
    pipeline = pipeline_of(source, on_failure=Drop())
    seen: list[int] = []

    @pipeline.batcher(size=2)
    async def keep(batch: Batch[dict[str, int]]) -> None:
        seen.extend(map(n_of, batch.messages))

    result = await pipeline.run()
    assert seen == [0, 1, 2, 0, 1]
    assert (result.settled["ok"], result.settled["discarded"]) == (5, 1)
    assert source.stored == {"orders": 5}
