"""A pipeline that was away for longer than its stream's retention, on every broker.

RabbitMQ itself has forgotten the stored offset by then: all of them, from 3.10 to 4.3.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.cli.readers.position import position_of
from flowstream.errors import Halted, OffsetTruncated
from flowstream.protocol import Code, QueryOffset
from flowstream.telemetry import Event, Telemetry, Truncated
from flowstream.testing import MemoryEnvironment
from tests.broker.raw import logged_in
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, contents, numbers, until

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
    broker: Broker, stream_name: str, offset: Literal["first", "next"]
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


async def outrun(environment: Environment, stream: str, behind: int) -> None:
    """Publish until retention has removed what is at that offset."""
    async with environment.publisher(stream) as publisher:
        with anyio.fail_after(PATIENCE):
            while ((await environment.stream_stats(stream)).first_offset or 0) <= behind:
                await publisher.publish_many([b"x" * 1000] * 100)


@pytest.mark.parametrize("partitions", [0, 2], ids=["stream", "super_stream"])
async def test_what_retention_took_before_anything_was_settled_is_told(
    broker: Broker, stream_name: str, partitions: int
) -> None:
    """The first message of all halts a pipeline that began at the beginning, as it does unasked."""
    if partitions and broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    make = SuperStreamProducer if partitions else StreamProducer
    limits: dict[str, Any] = {"max_length_bytes": 200_000, "max_segment_size_bytes": 50_000}
    async with Environment(broker.url) as environment:
        if partitions:
            await environment.create_super_stream(stream_name, partitions=partitions, **limits)
        else:
            await environment.create_stream(stream_name, **limits)
        try:
            stream = f"{stream_name}-1" if partitions else stream_name
            async with environment.publisher(stream) as publisher:
                await publisher.publish_many(numbers(10))
            poisoned = Pipeline(NAME, make(stream_name))

            @poisoned.processor
            async def fail(message: Message[bytes]) -> None:
                raise ValueError("poison")

            with anyio.fail_after(PATIENCE):
                async with poisoned.start(environment=environment) as running:
                    assert isinstance((await running.wait()).error, Halted)
            await outrun(environment, stream, 100)
            first = (await environment.stream_stats(stream)).first_offset
            assert first is not None
            found = await position_of(environment, NAME, stream)
            assert (found.offset, found.lost) == (None, found.first_offset)
            with pytest.raises(OffsetTruncated, match="truncated before being handled") as caught:
                await run(environment, make(stream_name), 0)
            assert (caught.value.stream, caught.value.stored) == (stream, -1)
            last = await environment.last_offset(stream)
            assert last is not None
            skipping = make(stream_name, on_truncated="skip")
            seen = await run(environment, skipping, last)
            assert first <= skipping.lost <= seen[0]
        finally:
            if partitions:
                await environment.delete_super_stream(stream_name)


@pytest.mark.parametrize("on_truncated", ["error", "skip"])
async def test_a_paused_pipeline_that_retention_overtook_is_told_when_it_goes_on(
    broker: Broker,
    stream_name: str,
    on_truncated: Literal["error", "skip"],
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer = StreamProducer(stream_name, credit=2, on_truncated=on_truncated)
    pipeline = Pipeline(NAME, producer, max_in_flight=50)
    seen: list[int] = []
    events = Recorded()

    @pipeline.processor(concurrency=1)
    async def handle(message: Message[bytes]) -> None:
        seen.append(message.offset)

    async with Environment(broker.url) as environment:
        await environment.create_stream(
            stream_name, max_length_bytes=200_000, max_segment_size_bytes=50_000
        )
        async with pipeline.start(environment=environment, telemetry=Telemetry(events)) as running:
            async with environment.publisher(stream_name) as publisher:
                await publisher.publish_many(numbers(200))
            await until(lambda: len(seen) == 200)
            running.pause()
            await outrun(environment, stream_name, 2_000)
            last = await environment.last_offset(stream_name)
            assert last is not None
            running.resume()
            if on_truncated == "skip":
                await until(lambda: seen[-1] >= last)
                running.stop()
            with anyio.fail_after(PATIENCE):
                result = await running.wait()
        gaps = [(a, b) for a, b in pairwise(seen) if b > a + 3]  # beside the broker's own records
        stored = await environment.query_offset(NAME, stream_name)
        assert stored is not None
        assert producer.lost == sum(it.messages for it in events.truncated) > 0
        if on_truncated == "error":
            assert isinstance(result.error, OffsetTruncated)
            assert "flowstream offsets reset away" in str(result.error)
            assert (gaps, stored) == ([], seen[-1])
            assert result.error.stored >= stored
            with pytest.raises(OffsetTruncated):
                await run(environment, StreamProducer(stream_name), 0)
        else:
            assert (result.error, len(gaps)) == (None, 1)
            assert abs(producer.lost - (gaps[0][1] - gaps[0][0] - 1)) <= 2
            assert "retention overtook" in caplog.text
            assert stored == last


@pytest.mark.parametrize("single_active", [False, True], ids=["all", "single_active"])
async def test_a_partition_that_retention_overtook_ends_the_pipeline(
    broker: Broker, stream_name: str, single_active: bool
) -> None:
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    producer = SuperStreamProducer(stream_name, credit=2, single_active=single_active)
    pipeline = Pipeline(NAME, producer, max_in_flight=50)
    seen: list[int] = []

    @pipeline.processor(concurrency=1)
    async def handle(message: Message[bytes]) -> None:
        seen.append(message.offset)

    async with Environment(broker.url) as environment:
        await environment.create_super_stream(
            stream_name, partitions=1, max_length_bytes=200_000, max_segment_size_bytes=50_000
        )
        try:
            (partition,) = await environment.partitions(stream_name)
            async with environment.publisher(partition) as publisher:
                await publisher.publish_many(numbers(200))
            async with pipeline.start(environment=environment) as running:
                await until(lambda: len(seen) == 200)
                running.pause()
                await outrun(environment, partition, 2_000)
                running.resume()
                with anyio.fail_after(PATIENCE):
                    result = await running.wait()
            assert isinstance(result.error, OffsetTruncated)
            assert result.error.stream == partition
            assert producer.lost == result.error.first - result.error.stored - 1 > 0
            assert await environment.query_offset(NAME, partition) == seen[-1]
            with pytest.raises(OffsetTruncated):
                await run(environment, SuperStreamProducer(stream_name), 0)
        finally:
            await environment.delete_super_stream(stream_name)


class Recorded:
    def __init__(self) -> None:
        self.truncated: list[Truncated] = []

    def observe(self, event: Event, /) -> None:
        if isinstance(event, Truncated):
            self.truncated.append(event)


@pytest.mark.parametrize("on_truncated", ["error", "skip"])
async def test_in_memory_it_is_as_on_a_broker(on_truncated: Literal["error", "skip"]) -> None:
    environment = MemoryEnvironment({"orders": [b"x"] * 20}, chunk_size=5)
    producer = StreamProducer("orders", on_truncated=on_truncated)
    pipeline = Pipeline("orders", producer, max_in_flight=5)
    seen: list[int] = []

    @pipeline.processor(concurrency=1)
    async def handle(message: Message[bytes]) -> None:
        if message.offset == 4:
            environment.stream("orders").truncate(15)
        seen.append(message.offset)

    async with pipeline.start(environment=environment) as running:
        if on_truncated == "skip":
            await until(lambda: seen[-1:] == [19])
            running.stop()
        result = await running.wait()
    if on_truncated == "error":
        assert isinstance(result.error, OffsetTruncated)
        assert seen == [*range(len(seen))]
        assert environment.offsets["orders", "orders"] == seen[-1] == result.error.stored
        assert producer.lost == 15 - len(seen)
    else:
        before = len(seen) - 5
        assert seen == [*range(before), *range(15, 20)]
        assert producer.lost == 15 - before
