"""A run is idle when all that was published is settled, whatever comes at the wrong moment."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import Message, Pipeline, RateLimit, StreamProducer
from flowstream.pipeline import RunResult
from flowstream.testing import MemoryEnvironment
from tests.support.reading import PATIENCE, numbers

pytestmark = pytest.mark.anyio

IDLE = 0.05


class ComesMeanwhile(MemoryEnvironment):
    """A message comes while the end of the stream is asked for, and takes a moment to be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.storing = anyio.Event()

    async def last_offset(self, stream: str) -> int | None:
        if not self.storing.is_set():
            async with self.publisher(stream) as publisher:
                await publisher.publish(b"1")
            await self.storing.wait()
        return await super().last_offset(stream)

    async def store_beginning(self, reference: str, stream: str) -> None:
        self.storing.set()
        await anyio.sleep(4 * IDLE)
        await super().store_beginning(reference, stream)


async def until_idle(environment: Any, **options: Any) -> RunResult:
    pipeline = Pipeline("reader", StreamProducer("numbers"), **options)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        pass

    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment) as running:
            return await running.wait_idle(IDLE)


@pytest.mark.medium
async def test_a_message_that_comes_while_the_end_is_looked_up_is_waited_for() -> None:
    environment = ComesMeanwhile()
    await environment.create_stream("numbers")
    result = await until_idle(environment)
    assert (result.handled, dict(result.committed)) == (1, {"numbers": 0})


@pytest.mark.medium
async def test_what_waits_for_the_rate_limit_is_waited_for() -> None:
    environment = MemoryEnvironment()
    await environment.create_stream("numbers")
    async with environment.publisher("numbers") as publisher:
        await publisher.publish_many(numbers(3))
    result = await until_idle(environment, rate_limit=RateLimit(messages=1, interval=4 * IDLE))
    assert (result.handled, dict(result.committed)) == (3, {"numbers": 2})
