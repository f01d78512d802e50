"""The place where a pipeline began is stored before it handles a message, on every broker.

Each pipeline is ended here as by a kill, before anything is settled: what it had taken in, and what
was published meanwhile, is handled by the next run, although "next" is elsewhere by then.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowstream import Message, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.client import AutoTracking, Environment
from flowstream.connectors.start import Start, where_to_start
from flowstream.errors import OffsetTruncated
from flowstream.pipeline import Producer
from flowstream.testing import MemoryEnvironment
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, contents, numbers, until

pytestmark = pytest.mark.anyio


NAME = "begun"


async def publish(environment: Environment, stream: str, count: int) -> None:
    async with environment.publisher(stream) as publisher:
        await publisher.publish_many(numbers(count))


async def killed(environment: Any, producer: Producer, taken: int, meanwhile: Any = None) -> None:
    """Run a pipeline that settles nothing until it has taken in that many messages."""
    pipeline = Pipeline(NAME, producer)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment) as running:
            if meanwhile is not None:
                await until(lambda: running.statistics().partitions)
                await meanwhile()
            await until(lambda: running.statistics().received >= taken)
            running.abort()
            await running.wait()


async def handled(environment: Any, producer: Producer, count: int) -> list[tuple[str, int]]:
    """Run a pipeline until it has handled that many messages; which they were."""
    pipeline = Pipeline(NAME, producer)
    seen: list[tuple[str, int]] = []

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        seen.append((message.stream, message.offset))

    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment) as running:
            await until(lambda: len(seen) >= count)
            running.stop()
            (await running.wait()).raise_for_error()
    return seen


@pytest.mark.parametrize(
    ("place", "begins_with"),
    [
        ("first", 0),
        ("last", 9),
        ("next", 10),
        (3, 3),
        (timedelta(hours=1), 0),
        (datetime.now(UTC) + timedelta(hours=1), 10),
    ],
    ids=["first", "last", "next", "offset", "age", "time"],
)
async def test_what_was_taken_in_before_the_first_commit_is_handled_after_a_kill(
    broker: Broker, stream_name: str, place: Any, begins_with: int
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, 9)
        await publish(environment, stream_name, 1)  # a chunk of its own, whatever became of the 9

        async def more() -> None:
            await publish(environment, stream_name, 5)

        producer = StreamProducer(stream_name, offset=place)
        await killed(environment, producer, 15 - begins_with, more)
        await publish(environment, stream_name, 5)
        expected = [
            (stream_name, offset) for offset, _, _ in await contents(environment, stream_name)
        ][begins_with:]
        seen = await handled(environment, StreamProducer(stream_name, offset=place), len(expected))
        assert seen == expected


@pytest.mark.parametrize("place", ["next", "last", timedelta(seconds=1)], ids=str)
async def test_what_is_published_after_a_start_in_an_empty_stream_is_handled(
    broker: Broker, stream_name: str, place: Any
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await killed(environment, StreamProducer(stream_name, offset=place), 0)
        await publish(environment, stream_name, 5)
        expected = [
            (stream_name, offset) for offset, _, _ in await contents(environment, stream_name)
        ]
        assert len(expected) == 5
        seen = await handled(environment, StreamProducer(stream_name, offset=place), 5)
        assert seen == expected


@pytest.mark.parametrize("single_active", [False, True], ids=["all", "single_active"])
async def test_every_partition_has_its_own_beginning(
    broker: Broker, stream_name: str, single_active: bool
) -> None:
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")

    def producer() -> SuperStreamProducer:
        return SuperStreamProducer(stream_name, offset="next", single_active=single_active)

    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=3)
        try:
            partitions = await environment.partitions(stream_name)

            async def fill() -> None:
                for partition in partitions:
                    await publish(environment, partition, 5)

            await fill()
            await killed(environment, producer(), 0, None if not single_active else fill)
            await fill()
            seen = await handled(environment, producer(), 30 if single_active else 15)
            for partition in partitions:
                stored = [at for at, _, _ in await contents(environment, partition)]
                assert [at for it, at in seen if it == partition] == stored[5:]
        finally:
            await environment.delete_super_stream(stream_name)


@pytest.mark.parametrize("single_active", [False, True], ids=["all", "single_active"])
async def test_a_beginning_holds_when_the_next_run_is_declared_to_begin_elsewhere(
    broker: Broker, stream_name: str, single_active: bool
) -> None:
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=2)
        try:
            partitions = await environment.partitions(stream_name)

            async def fill() -> None:
                for partition in partitions:
                    await publish(environment, partition, 5)

            first = SuperStreamProducer(stream_name, single_active=single_active)
            await killed(environment, first, 10, fill)
            await fill()
            after = SuperStreamProducer(stream_name, offset="next", single_active=single_active)
            seen = await handled(environment, after, 20)
            for partition in partitions:
                stored = [at for at, _, _ in await contents(environment, partition)]
                assert [at for it, at in seen if it == partition] == stored
        finally:
            await environment.delete_super_stream(stream_name)


async def test_a_partition_that_came_while_a_pipeline_was_away_is_handled_from_its_first_message():
    environment = MemoryEnvironment({"shop-0": [b"1"], "shop-1": [b"2"]})
    environment.super_stream("shop", 2)
    assert await handled(environment, SuperStreamProducer("shop", offset="next"), 0) == []
    environment.super_stream("shop").append("shop-2")
    environment.append("shop-2", [b"3"])
    environment.append("shop-1", [b"4"])
    seen = await handled(environment, SuperStreamProducer("shop", offset="next"), 2)
    assert sorted(seen) == [("shop-1", 1), ("shop-2", 0)]


async def test_a_consumer_that_tracks_by_itself_stores_where_it_began(
    broker: Broker, stream_name: str
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, 5)
        tracking: dict[str, Any] = {"reference": NAME, "tracking": AutoTracking(), "offset": "next"}
        async with environment.consumer(stream_name, **tracking):
            pass
        await publish(environment, stream_name, 5)
        async with environment.consumer(stream_name, **tracking) as consumer:
            bodies: list[bytes] = []
            with anyio.fail_after(PATIENCE):
                while len(bodies) < 5:  # the broker may make several chunks of them
                    bodies += (await anext(consumer)).bodies
            assert bodies == numbers(5)


def start(
    stored: int | None,
    first: int | None,
    *,
    asked: int = 0,
    skip: bool = False,
) -> Start:
    return where_to_start(
        "orders", "billing", stored=stored, asked=asked, first=first, skip_truncated=skip
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "first", "offset"), [(-1, 0, 0), (0, 0, 1), (4, 0, 5), (4, 5, 5), (4, None, 5)]
)
def test_it_starts_behind_the_stored_offset(stored, first, offset):
    assert start(stored, first, asked=9) == Start(offset, known=True)


@pytest.mark.parametrize(("asked", "first"), [(0, 0), (0, None), (7, 7), (7, None), (9, 2)])
def test_where_nothing_is_stored_it_starts_where_it_was_asked_to_and_stores_that(asked, first):
    found = start(None, first, asked=asked)
    assert found == Start(asked, known=False)
    assert found.settled == asked - 1


@pytest.mark.parametrize(("stored", "asked"), [(4, 0), (None, 5)])
def test_truncated_messages_are_an_error_that_says_how_many(stored, asked):
    with pytest.raises(OffsetTruncated, match="5 offsets were truncated") as caught:
        start(stored, 10, asked=asked)
    assert (caught.value.stored, caught.value.first) == (4, 10)
    assert "offset 5 of 'orders' is to be handled next" in str(caught.value)
    assert "flowstream offsets reset billing orders --to first" in str(caught.value)


def test_truncated_messages_can_be_skipped_and_are_counted_once():
    found = start(4, 10, skip=True)
    assert found == Start(10, known=False, lost=5)
    assert start(found.settled, 10, skip=True) == Start(10, known=True)
