"""A pipeline that was away for longer than its stream's retention, on every broker.

RabbitMQ itself has forgotten the stored offset by then: all of them, from 3.10 to 4.3.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, StreamProducer
from flowstream.errors import OffsetTruncated
from flowstream.protocol import Code, QueryOffset
from tests.broker.raw import logged_in
from tests.brokers.running import Broker
from tests.connectors.reading import PATIENCE, contents, numbers

pytestmark = pytest.mark.anyio

NAME = "away"
COMMITTED = 99


async def run(environment: Environment, producer: StreamProducer, last: int) -> list[int]:
    """Run a pipeline until it has handled the last offset; which it handled."""
    pipeline = Pipeline(NAME, producer)
    seen: list[int] = []

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        seen.append(message.offset)
        if message.offset >= last:
            running.stop()

    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment) as running:
            (await running.wait()).raise_for_error()
    return seen


async def fill_until_forgotten(broker: Broker, environment: Environment, stream: str) -> int:
    """Publish until the broker has no offset of the pipeline any more; the first offset left."""
    async with environment.publisher(stream) as publisher, logged_in(broker.url) as raw:
        with anyio.fail_after(PATIENCE):
            while True:
                await publisher.publish_many([b"x" * 1000] * 50)
                answer: Any = await raw.call(QueryOffset(1, NAME, stream), object)
                if answer.code == Code.NO_OFFSET:
                    break
    first = (await environment.stream_stats(stream)).first_offset
    assert first is not None
    assert first > COMMITTED + 1
    return first


@pytest.mark.parametrize("offset", ["first", "next"])
async def test_what_retention_took_is_told_and_what_it_left_is_handled(
    broker: Broker, stream_name: str, offset: str
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(
            stream_name, max_length_bytes=200_000, max_segment_size_bytes=50_000
        )
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(COMMITTED + 1))
        await run(environment, StreamProducer(stream_name), COMMITTED)

        first = await fill_until_forgotten(broker, environment, stream_name)
        assert await environment.query_offset(NAME, stream_name) == COMMITTED

        with pytest.raises(OffsetTruncated, match="stored offset") as caught:
            await run(environment, StreamProducer(stream_name, offset=offset), 0)
        assert caught.value.stored == COMMITTED
        assert caught.value.first >= first

        last = await environment.last_offset(stream_name)
        assert last is not None
        skipping = StreamProducer(stream_name, offset=offset, on_truncated="skip")
        seen = await run(environment, skipping, last)
        # retention works in the background, and once more when the run commits
        assert first <= seen[0]
        assert first - COMMITTED - 1 <= skipping.lost <= seen[0] - COMMITTED - 1
        assert {place for place, _, _ in await contents(environment, stream_name)} <= set(seen)
