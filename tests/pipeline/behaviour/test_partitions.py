"""Partitions of the pipeline, the processor or a batcher keep the order of their key."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import anyio
import pytest

from flowstream.pipeline import (
    Batch,
    Message,
)
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("where", ["pipeline", "processor", "batcher"])
async def test_partitions_of_the_pipeline_the_processor_or_a_batcher(where: str) -> None:
    """A batch has one partition, a key is always in the same one, and its order holds."""

    def key(message: Message[dict]) -> int:
        return n_of(message) % 11

    options: dict[str, dict[str, Any]] = defaultdict(dict)
    options[where]["partition_by"] = key
    pipeline = pipeline_of(MemoryStream(numbers(500), slices=[7, 90]), **options["pipeline"])
    homes: dict[int, set[Any]] = defaultdict(set)
    seen: dict[int, list[int]] = defaultdict(list)
    handling: set[Any] = set()

    # where only the batcher has partitions, one worker in front of it keeps the order
    @pipeline.processor(concurrency=1 if where == "batcher" else 3, **options["processor"])
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.01 * (n_of(message) % 3))

    @pipeline.batcher(size=5, batch_timeout=0.5, concurrency=3, **options["batcher"])
    async def load(batch: Batch[dict]) -> None:
        assert batch.partition not in handling
        handling.add(batch.partition)
        for message in batch:
            homes[key(message)].add(batch.partition)
            seen[key(message)].append(n_of(message))
        await anyio.sleep(0.05)
        handling.remove(batch.partition)

    assert (await pipeline.run()).settled == {"ok": 500}
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert len({partition for partitions in homes.values() for partition in partitions}) == 3
    assert all(numbers == sorted(numbers) for numbers in seen.values())
