"""SuperStreamProducer on brokers: a watermark per partition, and hand-overs that lose nothing."""

from __future__ import annotations

import logging
from collections import defaultdict

import anyio
import pytest
from anyio.abc import TaskStatus

from flowstream import (
    Backoff,
    Batch,
    Environment,
    Message,
    Pipeline,
    Retry,
    RunningPipeline,
    RunResult,
    SuperStreamProducer,
)
from flowstream.errors import ConfigurationError, Halted
from flowstream.telemetry import Event, PartitionMoved, Telemetry
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, numbers, until

pytestmark = pytest.mark.anyio


class Moves:
    """An observer of hand-overs."""

    def __init__(self) -> None:
        self.events: list[PartitionMoved] = []

    def observe(self, event: Event, /) -> None:
        if isinstance(event, PartitionMoved):
            self.events.append(event)

    @property
    def drained(self) -> list[PartitionMoved]:
        return [event for event in self.events if not event.active and event.seconds is not None]


async def last_offsets(environment: Environment, super_stream: str) -> dict[str, int]:
    found = {}
    for partition in await environment.partitions(super_stream):
        last = await environment.last_offset(partition)
        assert last is not None
        found[partition] = last
    return found


async def test_all_partitions_are_read_each_with_its_own_watermark(
    broker: Broker, stream_name: str
) -> None:
    """One message is tried again and again: the other partitions are committed to their ends."""
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    mended = False
    pipeline = Pipeline(
        "shop", SuperStreamProducer(stream_name), commit_every=10, commit_interval=0.05,
        retry=Retry(attempts=10_000, backoff=Backoff(initial=0.02, factor=1.0)),
        partition_by=lambda m: m.stream,
    )  # fmt: skip

    @pipeline.processor(concurrency=3)
    async def handle(message: Message[dict[str, int]]) -> None:
        if message.data["n"] == 0 and not mended:
            raise RuntimeError("not yet")

    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=3)
        try:
            async with environment.super_stream_publisher(
                stream_name, key=bytes.decode
            ) as publisher:
                await publisher.publish_many(numbers(300))
            last = await last_offsets(environment, stream_name)
            async with pipeline.start(environment=environment) as running:
                committed: dict[str, int | None] = {}
                with anyio.fail_after(PATIENCE):
                    while sum(committed.get(name) == last[name] for name in last) < 2:
                        for partition in last:
                            committed[partition] = await environment.query_offset("shop", partition)
                        await anyio.sleep(0.02)
                assert [*committed.values()].count(None) == 1
                mended = True
                await until(lambda: running.statistics().in_flight == 0)
                running.stop()
                result = await running.wait()
            assert result.settled == {"ok": 300}
            assert result.committed == last
        finally:
            await environment.delete_super_stream(stream_name)


async def test_a_hand_over_drains_commits_and_loses_and_repeats_nothing(
    broker: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Two runs of one pipeline: the second joins, then the first leaves.

    Batches end after a minute or by 10 000 messages, so nothing would be settled in time for a
    hand-over that did not drain. Each partition is handled in order, by one run after the other,
    without a gap or a repetition: what was drained was committed before the other one began.
    """
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    caplog.set_level(logging.INFO, "flowstream")
    received: set[tuple[str, int]] = set()
    handled: defaultdict[str, list[int]] = defaultdict(list)
    by: defaultdict[str, set[str]] = defaultdict(set)
    numbers_seen: list[int] = []

    def member(run: str) -> Pipeline:
        pipeline = Pipeline("shop", SuperStreamProducer(stream_name, single_active=True))

        @pipeline.processor
        async def receive(message: Message[dict[str, int]]) -> None:
            received.add((message.stream, message.offset))

        @pipeline.batcher(size=10_000, batch_timeout=60.0)
        async def load(batch: Batch[dict[str, int]]) -> None:
            for message in batch.messages:
                handled[message.stream].append(message.offset)
                numbers_seen.append(message.data["n"])
                by[run].add(message.stream)

        return pipeline

    async def run(
        name: str, environment: Environment, *, task_status: TaskStatus[RunningPipeline]
    ) -> None:
        telemetry = Telemetry(moves[name])
        async with member(name).start(environment=environment, telemetry=telemetry) as running:
            task_status.started(running)
            results[name] = await running.wait()

    moves = {"first": Moves(), "second": Moves()}
    results: dict[str, RunResult] = {}
    async with Environment(broker.url) as environment, Environment(broker.url) as elsewhere:
        await environment.create_super_stream(stream_name, partitions=3)
        try:
            with anyio.fail_after(2 * PATIENCE):
                async with (
                    environment.super_stream_publisher(stream_name, key=bytes.decode) as publisher,
                    anyio.create_task_group() as group,
                ):
                    await publisher.publish_many(numbers(300))
                    leaving = await group.start(run, "first", environment)
                    await until(lambda: len(received) == 300)
                    staying = await group.start(run, "second", elsewhere)
                    await until(lambda: moves["first"].drained)
                    moved = moves["first"].drained[0].stream
                    drained = list(handled[moved])
                    await publisher.publish_many(numbers(300, 300))
                    await until(lambda: len(received) == 600)
                    leaving.stop()
                    await until(lambda: "first" in results)
                    await publisher.publish_many(numbers(300, 600))
                    await until(lambda: len(received) == 900)
                    staying.stop()
            assert results["first"].error is None
            result = results["second"]
            assert result.error is None
            last = await last_offsets(environment, stream_name)
            assert sorted(numbers_seen) == [*range(900)]
            assert all(offsets == sorted(offsets) for offsets in handled.values())
            assert drained, "nothing was waiting in an open batch when the partition moved"
            assert by["second"] == last.keys()
            for partition, offset in last.items():
                assert await environment.query_offset("shop", partition) == offset
            went, settled = moved, drained[-1]
            assert f"{went} came to this process, of the group with reference shop" in caplog.text
            assert f"{went} begins at first: nothing stored under reference shop" in caplog.text
            left = f"{went} left this process, handed over to others of reference shop in "
            text = next(each for each in caplog.messages if each.startswith(left))
            assert text.endswith(f" s: settled up to {settled:,}")
            resumed = f"resumes at {settled + 1:,}: stored offset {settled:,} of reference shop"
            assert f"{went} {resumed}" in caplog.text
        finally:
            await environment.delete_super_stream(stream_name)


async def test_a_message_of_a_partition_is_discarded(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    handled: list[int] = []
    pipeline = Pipeline("shop", SuperStreamProducer(stream_name))

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None:
        if message.data["n"] == 5:
            raise ValueError("poison")
        handled.append(message.data["n"])

    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=2)
        async with environment.super_stream_publisher(
            stream_name, key=lambda body: body.decode()
        ) as publisher:
            await publisher.publish_many(numbers(12))
        with pytest.raises(ConfigurationError, match=f"{stream_name}-1") as refused:
            await pipeline.run(environment=environment, discard=[(stream_name, 1)])
        assert "does not read the stream" in str(refused.value)
        with anyio.fail_after(PATIENCE), pytest.raises(Halted) as halted:
            await pipeline.run(environment=environment)
        (place,) = halted.value.messages
        async with pipeline.start(
            environment=environment, discard=halted.value.messages
        ) as running:
            with anyio.fail_after(PATIENCE):
                await running.wait_idle(0.2)
            running.stop()
            result = await running.wait()
        assert result.discarded == (place,)
        assert place[0].startswith(f"{stream_name}-")
        assert {*handled} == {*range(12)} - {5}
        ends = await last_offsets(environment, stream_name)
        stored = {each: await environment.query_offset("shop", each) for each in ends}
        assert stored == ends
        await environment.delete_super_stream(stream_name)


class SlowToBegin(Environment):
    """The stored offset is looked up as slowly as while nodes elect leaders."""

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        await anyio.sleep(0.5)
        return await super().query_beginning(reference, stream)


async def test_a_run_is_not_idle_while_a_partition_is_coming(
    broker: Broker, stream_name: str
) -> None:
    """It ended well, and had handled nothing."""
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    pipeline = Pipeline("shop", SuperStreamProducer(stream_name, single_active=True))

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    async with SlowToBegin(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=1)
        async with environment.publisher(f"{stream_name}-0") as publisher:
            await publisher.publish_many(numbers(10))
        async with pipeline.start(environment=environment) as running:
            with anyio.fail_after(PATIENCE):
                result = await running.wait_idle(0.1)
        assert result.settled == {"ok": 10}
        await environment.delete_super_stream(stream_name)


async def test_a_member_of_a_group_is_idle_when_the_others_have_settled_all(
    broker: Broker, stream_name: str
) -> None:
    """A member without a partition ended at once, although nothing was handled yet."""
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    begun, go = anyio.Event(), anyio.Event()

    def member() -> Pipeline:
        producer = SuperStreamProducer(stream_name, single_active=True)
        pipeline = Pipeline("shop", producer, commit_interval=0.05)

        @pipeline.processor
        async def handle(message: Message[dict[str, int]]) -> None:
            begun.set()
            await go.wait()

        return pipeline

    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=1)
        async with environment.publisher(f"{stream_name}-0") as publisher:
            await publisher.publish_many(numbers(10))
        with anyio.fail_after(PATIENCE):
            async with member().start(environment=environment) as busy:
                await begun.wait()
                async with member().start(environment=environment) as standby:
                    with anyio.move_on_after(1.0) as waited:
                        await standby.wait_idle(0.1)
                    assert waited.cancelled_caught
                    go.set()
                    result = await standby.wait_idle(0.1)
                    assert result.received == 0
                    assert busy.statistics().settled == {"ok": 10}
        await environment.delete_super_stream(stream_name)
