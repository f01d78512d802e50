"""Publishing exactly once: what brokers forget is an error, and owners that overlap add nothing."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import (
    DeadLetter,
    Environment,
    Halt,
    IterableProducer,
    Message,
    Pipeline,
    Slice,
    StreamProducer,
    StreamSink,
)
from flowstream.client import AmqpMessage
from flowstream.connectors import publish_once
from flowstream.connectors.publish_once import (
    MAX_REFERENCE,
    OncePublisher,
    bounded,
    offset_of,
    publishing_ids,
)
from flowstream.errors import (
    ConfigurationError,
    Halted,
    SequenceLost,
    SinkFailed,
    StreamReplaced,
)
from flowstream.pipeline import Failure, FailurePolicy, RunResult
from flowstream.testing import MemoryEnvironment
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, contents, numbers

pytestmark = pytest.mark.anyio


def copying(source: str, sink: StreamSink, **options: Any) -> Pipeline:
    pipeline = Pipeline(f"copy {source}", StreamProducer(source), **options)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    pipeline.sink("out", sink, batch_timeout=0.05)
    return pipeline


async def run(pipeline: Pipeline, environment: Any) -> RunResult:
    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment) as running:
            await running.wait_idle(0.2)
            running.stop()
            return await running.wait()


async def publish(environment: Environment, stream: str, count: int, first: int = 0) -> None:
    async with environment.publisher(stream) as publisher:
        await publisher.publish_many(numbers(count, first))


async def found(environment: Environment, stream: str) -> list[int]:
    return [json.loads(body)["n"] for _, _, body in await contents(environment, stream)]


# -- ids and references


@given(st.integers(0, (1 << 47) - 2), st.integers(1, 1 << 16))
def test_ids_ascend_with_offsets_and_name_them(offset: int, count: int) -> None:
    ids = publishing_ids(offset, count)
    assert len(ids) == count
    assert 0 < ids[0] <= ids[-1] < publishing_ids(offset + 1, 1)[0]
    assert ids[-1] < 1 << 63
    assert {offset_of(ids[0]), offset_of(ids[-1])} == {offset}
    assert offset_of(0) == -1


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_references_fit_and_stay_different(one: str, other: str) -> None:
    one, other = one.encode(errors="replace").decode(), other.encode(errors="replace").decode()
    assert len(bounded(one).encode()) <= MAX_REFERENCE
    assert (bounded(one) == bounded(other)) == (one == other)


# -- what brokers forget


async def test_a_target_that_was_created_again_is_an_error_with_a_way_out(
    broker: Broker, stream_name: str
) -> None:
    source, target = f"{stream_name}.in", stream_name
    async with Environment(broker.url) as environment:
        for stream in (source, target):
            await environment.create_stream(stream)
        await publish(environment, source, 10)
        await run(copying(source, StreamSink(target, exactly_once=True)), environment)
        await environment.delete_stream(target)
        await environment.create_stream(target)
        await publish(environment, source, 10, first=10)
        for _ in range(2):  # the same each time, although the runs share an environment
            result = await run(copying(source, StreamSink(target, exactly_once=True)), environment)
            assert isinstance(result.error, SequenceLost)
            assert "deleted and created again" in str(result.error)
        assert await found(environment, target) == []
        sink = StreamSink(target, exactly_once=True, reference=f"{source} again")
        await run(copying(source, sink), environment)
        assert await found(environment, target) == list(range(10, 20))
        await environment.delete_stream(source)


async def test_a_target_that_is_created_again_during_a_run_is_an_error(
    broker: Broker, stream_name: str
) -> None:
    """Its publisher connects to a stream that does not have what was confirmed."""
    source, target = f"{stream_name}.in", stream_name
    async with Environment(broker.url) as environment:
        for stream in (source, target):
            await environment.create_stream(stream)
        await publish(environment, source, 10)
        with anyio.fail_after(60):
            pipeline = copying(source, StreamSink(target, exactly_once=True))
            async with pipeline.start(environment=environment) as running:
                await running.wait_idle(0.2)
                await environment.delete_stream(target)
                await environment.create_stream(target)
                await publish(environment, source, 10, first=10)
                result = await running.wait()
        assert isinstance(result.error, SequenceLost)
        assert await found(environment, target) == []
        result = await run(copying(source, StreamSink(target, exactly_once=True)), environment)
        assert isinstance(result.error, SequenceLost)
        assert await found(environment, target) == []
        await environment.delete_stream(source)


async def test_a_source_that_was_created_again_is_an_error(
    broker: Broker, stream_name: str
) -> None:
    source, target = f"{stream_name}.in", stream_name
    async with Environment(broker.url) as environment:
        for stream in (source, target):
            await environment.create_stream(stream)
        await publish(environment, source, 10)
        await run(copying(source, StreamSink(target, exactly_once=True)), environment)
        await environment.delete_stream(source)
        await environment.create_stream(source)
        await publish(environment, source, 5, first=10)
        result = await run(copying(source, StreamSink(target, exactly_once=True)), environment)
        assert isinstance(result.error, StreamReplaced)
        assert await found(environment, target) == list(range(10))
        await environment.delete_stream(source)


async def test_after_a_reset_nothing_is_published_again_and_that_is_logged(
    broker: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = f"{stream_name}.in", stream_name
    async with Environment(broker.url) as environment:
        for stream in (source, target):
            await environment.create_stream(stream)
        await publish(environment, source, 10)
        await run(copying(source, StreamSink(target, exactly_once=True)), environment)
        await environment.store_offset_verified(f"copy {source}", source, -1, keep=True)
        await publish(environment, source, 3, first=10)
        with caplog.at_level(logging.INFO):
            result = await run(copying(source, StreamSink(target, exactly_once=True)), environment)
        assert result.settled == {"ok": 13}
        assert await found(environment, target) == list(range(13))
        await environment.delete_stream(source)
    told = [r.getMessage() for r in caplog.records if "is not published again" in r.getMessage()]
    assert len(told) == 1
    assert "@0 and others up to 9" in told[0]


# -- owners that overlap


async def test_two_owners_publish_each_message_once() -> None:
    """One that should be dead goes on while another has begun, in any order of their steps."""
    memory = MemoryEnvironment()
    owners = [OncePublisher(memory, "p", "p/out") for _ in range(2)]
    first, second = [await owner.channel("source", "target") for owner in owners]

    async def send(channel: Any, offsets: range) -> None:
        ids = [publishing_ids(offset, 1)[0] for offset in offsets]
        await channel.send(ids, [b"%d" % offset for offset in offsets])
        await channel.confirmed()

    await send(first, range(5))
    await send(second, range(3))
    await send(second, range(3, 8))
    await send(first, range(5, 9))
    await send(second, range(8, 10))
    await send(first, range(9, 10))
    assert memory.stream("target").bodies == [b"%d" % n for n in range(10)]
    for owner in owners:
        await owner.close()


# -- failures


@pytest.mark.medium
async def test_what_is_refused_is_published_again_in_order() -> None:
    memory = MemoryEnvironment({"in": numbers(20)}, chunk_size=5)
    memory.refuse("out", 2)
    result = await run(copying("in", StreamSink("out", exactly_once=True)), memory)
    assert result.settled == {"ok": 20}
    assert memory.stream("out").bodies == numbers(20)


@pytest.mark.medium
async def test_a_halt_publishes_nothing_behind_the_message() -> None:
    memory = MemoryEnvironment({"in": numbers(20)}, chunk_size=20)
    broken = True

    def encode(data: bytes) -> bytes:
        if broken and json.loads(data)["n"] == 11:
            raise ValueError("not yet")
        return data

    sink = StreamSink("out", exactly_once=True, encode=encode)
    result = await run(copying("in", sink), memory)
    assert isinstance(result.error, Halted)
    assert memory.stream("out").bodies == numbers(11)
    broken = False
    assert (await run(copying("in", sink), memory)).error is None
    assert memory.stream("out").bodies == numbers(20)


@pytest.mark.medium
async def test_a_sink_that_fails_for_good_ends_the_run_and_the_policy_gets_nothing() -> None:
    memory = MemoryEnvironment({"in": numbers(20)})
    memory.refuse("out", 1000)
    policy = DeadLetter("dead", exactly_once=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_once, "ATTEMPTS", 2)
        result = await run(
            copying("in", StreamSink("out", exactly_once=True), on_failure=policy), memory
        )
    assert isinstance(result.error, SinkFailed)
    assert result.settled == {}
    assert result.unsettled == 20
    assert memory.stream("dead").bodies == []


@pytest.mark.medium
async def test_a_failure_behind_a_halt_is_left_to_the_next_run() -> None:
    """It comes when the halt has been told to everybody."""
    memory = MemoryEnvironment({"in": numbers(2)}, chunk_size=1)
    policy = DeadLetter("dead", max_ratio=None, exactly_once=True)
    pipeline = Pipeline("halting", StreamProducer("in"), on_failure=policy)

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[bytes]) -> None:
        if message.offset:
            await anyio.sleep(0.2)
        raise ValueError("no")

    @pipeline.on_failed
    async def failed(failure: Failure) -> FailurePolicy | None:
        return None if failure.message.offset else Halt()

    result = await run(pipeline, memory)
    assert isinstance(result.error, Halted)
    assert memory.stream("dead").bodies == []


@pytest.mark.medium
@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize("slices", [False, True])
async def test_a_letter_that_waits_for_a_message_of_another_key_is_not_waited_for_by_it(
    slices: bool, concurrency: int
) -> None:
    """Two keys fail in one slice. The letter of the second waits for messages of the first between
    them, which wait for its letter: they were waited for together, and the run hung."""
    environment = MemoryEnvironment(chunk_size=50)
    environment.append("source", [{"n": n, "bad": n % 50 in (0, 25)} for n in range(300)])
    letters = DeadLetter("dead", max_ratio=None, exactly_once=True)
    pipeline = Pipeline("keyed", StreamProducer("source"), on_failure=letters)
    seen: list[int] = []

    def decide(message: Message[dict[str, Any]]) -> None:
        seen.append(message.offset)
        if message.data["bad"]:
            message.fail("bad")

    async def handle_slice(part: Slice[dict[str, Any]]) -> None:
        for message in part:
            decide(message)

    async def handle(message: Message[dict[str, Any]]) -> None:
        decide(message)

    options: Any = {"slices": slices, "partition_by": lambda message: message.offset % 3}
    handler: Any = handle_slice if slices else handle
    pipeline.processor(concurrency=concurrency, **options)(handler)
    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=environment) as running:
            await running.wait_idle(0.1)
            running.stop()
            result = await running.wait()
    assert result.settled == {"ok": 288, "dead_lettered": 12}
    bodies = environment.stream("dead").bodies
    found = [json.loads(AmqpMessage(body).body)["n"] for body in bodies]
    assert found == [n for n in range(300) if n % 50 in (0, 25)]
    for key in range(3):
        theirs = [offset for offset in seen if offset % 3 == key]
        assert theirs == sorted(theirs)


@pytest.mark.medium
async def test_a_message_that_fails_in_two_sinks_has_one_dead_letter() -> None:
    memory = MemoryEnvironment({"in": numbers(5)})
    pipeline = Pipeline(
        "both", StreamProducer("in"), on_failure=DeadLetter("dead", max_ratio=None,
                                                            exactly_once=True),
    )  # fmt: skip

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        message.to("one", "two")

    def refuse(data: bytes) -> bytes:
        raise ValueError("no")

    for name in ("one", "two"):
        sink = StreamSink(name, exactly_once=True, encode=refuse)
        pipeline.sink(name, sink, batch_timeout=0.05)
    result = await run(pipeline, memory)
    assert result.settled == {"dead_lettered": 5}
    assert len(memory.stream("dead").bodies) == 5


def test_a_source_without_offsets_is_refused() -> None:
    pipeline = Pipeline("items", IterableProducer([b"1"]))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    pipeline.sink("out", StreamSink("out", exactly_once=True))
    with pytest.raises(ConfigurationError, match=r"stores offsets.*IterableProducer"):
        pipeline.check()


@pytest.mark.parametrize("kind", [StreamSink, DeadLetter])
def test_a_reference_without_exactly_once_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs exactly_once=True"):
        kind("out", reference="mine")
