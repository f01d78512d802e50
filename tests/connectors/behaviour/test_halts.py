"""The advice of a halt, followed to the letter, on brokers: every other message is handled."""

from __future__ import annotations

import re

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, StreamProducer
from flowstream.errors import Halted
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, numbers

pytestmark = pytest.mark.anyio
POISON = {3, 60}
BROKEN = 61


async def test_the_advice_of_halts_loses_no_other_message(broker: Broker, stream_name: str) -> None:
    """Messages in front of the failed ones are still in their handlers, and one has no JSON."""
    bodies = numbers(100)
    bodies[BROKEN] = b"{"
    pipeline = Pipeline("p", StreamProducer(stream_name))
    handled: set[int] = set()

    @pipeline.processor(concurrency=4, max_demand=1)
    async def handle(message: Message[dict[str, int]]) -> None:
        if message.offset in POISON:
            raise ValueError("poison")
        await anyio.sleep(0.05 if message.offset < 3 else 0)
        handled.add(message.offset)

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(bodies)
        told: list[str] = []
        error: BaseException | None = None
        while error is None or told:
            async with pipeline.start(environment=environment, discard=told) as running:
                with anyio.fail_after(PATIENCE):
                    await running.wait_idle(0.2)
                running.stop()
                result = await running.wait()
            if (error := result.error) is None:
                break
            assert isinstance(error, Halted)
            told = re.findall(r"--discard (\S+@\d+)", str(error))
        assert error is None
        assert handled == {*range(100)} - POISON - {BROKEN}
        assert await environment.query_offset("p", stream_name) == 99
