"""Stored offsets that something else moves, on every broker: it is seen, and never by mistake."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, Producer, StreamProducer, SuperStreamProducer
from flowstream.connectors.start import beyond
from flowstream.errors import CommitNotVerified, StreamDoesNotExist
from flowstream.pipeline import RunningPipeline, RunResult
from flowstream.pipeline.stages import offset_watch
from flowstream.telemetry import Event, OffsetMoved, Telemetry, Warned
from flowstream.testing import MemoryEnvironment
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, numbers, until

pytestmark = pytest.mark.anyio

NAME = "watched"


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_watch, "LOOK", 0.05)


class Told:
    """What a run says of stored offsets."""

    def __init__(self) -> None:
        self.events: list[OffsetMoved | Warned] = []
        self.committed = 0

    def observe(self, event: Event, /) -> None:
        if isinstance(event, OffsetMoved | Warned):
            self.events.append(event)

    @property
    def moved(self) -> list[tuple[str, str, int]]:
        return [
            (each.stream, each.reference, each.found)
            for each in self.events
            if isinstance(each, OffsetMoved)
        ]

    @property
    def warned(self) -> list[str]:
        return [each.text for each in self.events if isinstance(each, Warned)]


class Run:
    """A pipeline that runs, what it has handled, and what it told."""

    def __init__(self, running: RunningPipeline, told: Told, seen: list[int]) -> None:
        self.running = running
        self.told = told
        self.seen = seen

    def reads(self) -> int:
        """How many streams it reads itself."""
        return sum(partition.active for partition in self.running.statistics().partitions)

    async def stop(self) -> RunResult:
        self.running.stop()
        return await self.running.wait()


@asynccontextmanager
async def run(environment: Any, producer: Producer, **options: Any) -> AsyncIterator[Run]:
    pipeline = Pipeline(NAME, producer, **{"commit_interval": 0.2} | options)
    told, seen = Told(), list[int]()

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        seen.append(message.offset)

    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment, telemetry=Telemetry(told)) as running:
            yield Run(running, told, seen)
            await Run(running, told, seen).stop()


async def publish(environment: Environment, stream: str, count: int) -> None:
    async with environment.publisher(stream) as publisher:
        await publisher.publish_many(numbers(count))


async def until_stored(environment: Any, stream: str, wanted: Callable[[int | None], bool]) -> int:
    with anyio.fail_after(PATIENCE):
        while not wanted(found := await environment.query_offset(NAME, stream)):
            await anyio.sleep(0.01)
    return found  # type: ignore[no-any-return]


# -- while it runs


async def test_an_offset_that_is_moved_meanwhile_is_told(
    broker: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, 10)
        async with run(environment, StreamProducer(stream_name)) as here:
            stored = await until_stored(environment, stream_name, lambda at: (at or 0) >= 9)
            await anyio.sleep(3 * offset_watch.LOOK)
            assert here.told.events == []
            await environment.store_offset_verified(NAME, stream_name, 3)
            await until(lambda: here.told.moved)
            assert {*here.told.moved} == {(stream_name, NAME, 3)}
    said = [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING]
    assert len(said) == 1
    assert f"this run stored {stored}, and now 3 is stored" in said[0]
    assert f"under the reference {NAME!r}" in said[0]


async def test_a_second_run_under_the_same_reference_is_told_of(
    broker: Broker, stream_name: str
) -> None:
    async with (
        Environment(broker.url) as environment,
        Environment(broker.url) as another,
    ):
        await environment.create_stream(stream_name)
        producers = StreamProducer(stream_name), StreamProducer(stream_name)
        async with run(environment, producers[0]) as here, run(another, producers[1]) as there:
            with anyio.fail_after(PATIENCE):
                while not (here.told.moved or there.told.moved):
                    await publish(environment, stream_name, 3)
                    await anyio.sleep(0.02)


async def test_a_second_run_that_stores_the_same_offsets_is_told_of(
    broker: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a message now and then both runs store the same, one after the other."""
    async with (
        Environment(broker.url) as environment,
        Environment(broker.url) as another,
    ):
        await environment.create_stream(stream_name)
        producers = StreamProducer(stream_name), StreamProducer(stream_name)
        async with run(environment, producers[0]) as here, run(another, producers[1]) as there:
            await publish(environment, stream_name, 1)
            await until(lambda: here.told.moved or there.told.moved)
            await publish(environment, stream_name, 1)  # whoever saw it says that it is there, too
            await until(lambda: here.told.moved and there.told.moved)
    said = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
    assert any("another run stores offsets" in each for each in said)


@pytest.mark.slow
async def test_a_run_of_its_own_is_never_told_of(broker: Broker, stream_name: str) -> None:
    """Commits, looks and restarts as fast as can be, one run after the other."""
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        for _ in range(3):
            producer = StreamProducer(stream_name)
            async with run(environment, producer, commit_every=1, commit_interval=0.01) as here:
                first = len(here.seen)
                for _ in range(20):
                    await publish(environment, stream_name, 3)
                    await anyio.sleep(0.01)
                await until(lambda: len(here.seen) >= first + 60)  # noqa: B023
            assert here.told.events == []


async def test_partitions_that_are_handed_over_are_not_told_of(
    broker: Broker, stream_name: str
) -> None:
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")

    def producer() -> SuperStreamProducer:
        return SuperStreamProducer(stream_name, single_active=True)

    async with (
        Environment(broker.url) as environment,
        Environment(broker.url) as another,
    ):
        await environment.create_super_stream(stream_name, partitions=2)
        try:
            partitions = await environment.partitions(stream_name)

            async def feed(seen: list[int], count: int) -> None:
                for partition in partitions:
                    await publish(environment, partition, 5)
                await until(lambda: len(seen) >= count)

            async with run(environment, producer(), commit_every=1) as here:
                await feed(here.seen, 10)
                async with run(another, producer(), commit_every=1) as there:
                    await until(lambda: there.reads() == 1)
                    for _ in range(3):
                        for partition in partitions:
                            await publish(environment, partition, 5)
                        await anyio.sleep(0.1)
                    await until(lambda: len(here.seen) + len(there.seen) >= 40)
                await feed(here.seen, len(here.seen) + 10)
            assert here.told.events == there.told.events == []
        finally:
            await environment.delete_super_stream(stream_name)


# -- at the start


async def test_a_stored_offset_behind_the_end_of_the_stream_is_warned_of(
    broker: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await environment.store_offset_verified(NAME, stream_name, 9_999)
        async with run(environment, StreamProducer(stream_name)) as here:
            pass
        assert f"{stream_name!r} is empty, and offset 9999 is stored" in here.told.warned[0]
        await publish(environment, stream_name, 10)
        last = await environment.last_offset(stream_name)
        async with run(environment, StreamProducer(stream_name)) as here:
            pass
        (said,) = here.told.warned
        assert f"{stream_name!r} ends at {last}, and offset 9999 is stored" in said
        assert "no message before 10000 will be handled" in said
        assert f"flowstream offsets reset {NAME} {stream_name} --to first" in said
    assert said in [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]


@pytest.mark.parametrize("place", ["first", "next", "last"])
async def test_a_run_that_has_handled_all_there_is_begins_without_a_word(
    broker: Broker, stream_name: str, place: Any
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        for count in (0, 10, 0):
            if count:
                await publish(environment, stream_name, count)
            async with run(environment, StreamProducer(stream_name, offset=place)) as here:
                await until(lambda: len(here.seen) >= count)  # noqa: B023
            assert here.told.events == []


@pytest.mark.parametrize(
    ("stored", "first", "last", "said"),
    [
        (9, 0, 9, None),
        (9, None, None, "is empty"),
        (10, 0, 9, "ends at 9"),
        (9, 10, None, None),  # retention has removed what was read
        (9, 5, 12, None),
        (-1, None, None, None),
    ],
)
def test_what_is_behind_the_end(
    stored: int, first: int | None, last: int | None, said: str | None
) -> None:
    text = beyond("orders", "shop", stored=stored, first=first, last=last)
    assert text is None if said is None else said in str(text)


async def test_in_memory_it_is_as_on_a_broker() -> None:
    environment = MemoryEnvironment({"orders": [b"1", b"2"]})
    environment.offsets[NAME, "orders"] = 5
    async with run(environment, StreamProducer("orders")) as here:
        await environment.store_offset(NAME, "orders", 1)
        await until(lambda: here.told.moved)
    assert "'orders' ends at 1, and offset 5 is stored" in here.told.warned[0]


# -- a stream that is another one


async def created_again(environment: Environment, stream: str) -> None:
    await environment.delete_stream(stream)
    with anyio.fail_after(PATIENCE):
        while await environment.stream_exists(stream):
            await anyio.sleep(0.05)
    await environment.create_stream(stream)


@asynccontextmanager
async def whose_stream_is_created_again(
    environment: Environment, stream: str
) -> AsyncIterator[Run]:
    """A run that has stored what it handled of the stream, and goes on with the new one."""
    await environment.create_stream(stream)
    await publish(environment, stream, 10)
    async with run(environment, StreamProducer(stream)) as here:
        await until_stored(environment, stream, lambda at: (at or 0) >= 9)
        await created_again(environment, stream)
        yield here


async def test_a_run_that_is_left_over_stores_nothing_for_a_new_stream_of_the_same_name(
    broker: Broker, stream_name: str
) -> None:
    async with Environment(broker.url) as environment:
        async with whose_stream_is_created_again(environment, stream_name) as here:
            result = await here.stop()
        assert isinstance(result.error, CommitNotVerified)
        assert "was deleted and created again" in str(result.error)
        assert await environment.query_beginning(NAME, stream_name) is None


async def test_a_run_whose_stream_is_created_again_ends_and_stores_nothing_for_the_new_one(
    broker: Broker, stream_name: str
) -> None:
    async with Environment(broker.url) as environment:
        async with whose_stream_is_created_again(environment, stream_name) as here:
            await publish(environment, stream_name, 3)
            result = await here.running.wait()
        assert isinstance(result.error, StreamDoesNotExist)
        assert "was deleted and created again while" in str(result.error)
        assert await environment.query_beginning(NAME, stream_name) is None
        async with run(environment, StreamProducer(stream_name)) as here:
            await until(lambda: len(here.seen) == 3)
        assert here.told.events == []


async def test_a_run_that_has_read_nothing_skips_no_message_of_a_stream_that_is_created_again(
    broker: Broker, stream_name: str
) -> None:
    """It waits behind its stored offset, which the new stream passes."""
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, 10)
        async with run(environment, StreamProducer(stream_name)) as here:
            await until_stored(environment, stream_name, lambda at: (at or 0) >= 9)
        async with run(environment, StreamProducer(stream_name)) as here:
            await until(lambda: environment.statistics()["subscriptions"] == 1)
            await created_again(environment, stream_name)
            for _ in range(2):
                await publish(environment, stream_name, 10)
            result = await here.running.wait()
        assert here.seen == []
        assert isinstance(result.error, StreamDoesNotExist)
        assert "was deleted and created again while" in str(result.error)
        async with run(environment, StreamProducer(stream_name)) as here:
            await until(lambda: len(here.seen) == 20)


async def test_what_is_settled_after_the_stream_was_created_again_is_not_stored_for_it(
    broker: Broker, stream_name: str
) -> None:
    go_on = anyio.Event()
    pipeline = Pipeline(NAME, StreamProducer(stream_name), commit_every=1, commit_interval=0.1)

    @pipeline.processor(concurrency=20)
    async def handle(message: Message[bytes]) -> None:
        await go_on.wait()

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await publish(environment, stream_name, 10)
        with anyio.fail_after(PATIENCE):
            async with pipeline.start(environment=environment) as running:
                await until(lambda: running.statistics().in_flight == 10)
                await created_again(environment, stream_name)
                go_on.set()
                await until(lambda: running.statistics().in_flight == 0)
                await anyio.sleep(0.3)
                assert await environment.query_beginning(NAME, stream_name) is None
                running.stop()
                result = await running.wait()
        assert isinstance(result.error, CommitNotVerified)
        assert await environment.query_beginning(NAME, stream_name) is None
