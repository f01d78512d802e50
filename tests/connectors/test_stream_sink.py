"""StreamSink on brokers: what cannot be published fails alone."""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import anyio
import pytest

from flowstream import (
    DeadLetter,
    Drop,
    Environment,
    IterableProducer,
    Message,
    Pipeline,
    Retry,
    StreamProducer,
    StreamSink,
)
from flowstream.client import hash_route
from flowstream.errors import (
    ConfigurationError,
    ConnectionFailed,
    MessageTooLarge,
    PublishFailed,
    StreamDoesNotExist,
)
from flowstream.pipeline import Failure, RunResult
from flowstream.testing import MemoryEnvironment, MemorySuperStreamPublisher
from tests.brokers.running import Broker
from tests.integration.test_client_consuming import declare_super_stream
from tests.support.callbacks import nothing
from tests.support.reading import PATIENCE, contents

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("amqp", [False, True])
async def test_what_cannot_be_encoded_or_is_too_large_fails_alone(
    broker: Broker, stream_name: str, amqp: bool
) -> None:
    def encode(data: int) -> Any:
        if data == 3:
            raise ValueError("no")
        return {4: None, 5: "text", 7: bytes(2 << 20), 8: bytes(3 << 20)}.get(data, b"%d" % data)

    failures: list[Failure] = []
    pipeline = Pipeline(
        "sunk", IterableProducer(range(10)), retry=Retry(attempts=3), on_failure=Drop()
    )

    @pipeline.processor
    async def handle(message: Message[Any]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    pipeline.sink("out", StreamSink(stream_name, encode=encode, amqp=amqp), size=10)
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        with anyio.fail_after(PATIENCE):
            result = await pipeline.run(environment=environment)
        found = [body for _, _, body in await contents(environment, stream_name)]
    assert result.settled == {"ok": 5, "discarded": 5}
    assert [body[-1:] for body in found] == [b"0", b"1", b"2", b"6", b"9"]
    kinds = {failure.message.data: type(failure.error) for failure in failures}
    assert kinds == {
        3: ValueError, 4: TypeError, 5: TypeError, 7: MessageTooLarge, 8: MessageTooLarge,
    }  # fmt: skip
    assert {(failure.phase, failure.attempts) for failure in failures} == {("sink", 1)}


@pytest.fixture
async def partitions(broker: Broker, stream_name: str) -> AsyncIterator[list[str]]:
    """A super stream of two partitions, named like the test."""
    async with Environment(broker.url) as environment:
        if broker.version < (3, 13):
            declare_super_stream(broker, stream_name, 2)
        else:
            await environment.create_super_stream(stream_name, partitions=2)
        yield await environment.partitions(stream_name)
        if broker.version >= (3, 13):
            await environment.delete_super_stream(stream_name)


@pytest.mark.parametrize("key", ["customer", lambda message: message.data.get("customer")])
async def test_keys_choose_the_partitions_of_a_super_stream(
    broker: Broker, stream_name: str, partitions: list[str], key: Any
) -> None:
    """In order within each; a message without a key, or one too large, fails alone."""
    customers: list[Any] = [f"c{n % 5}" for n in range(20)]
    customers[3:7] = [7, None, 1.5, "\ud800"]
    items = [{"n": n, "customer": customer} for n, customer in enumerate(customers)]
    items[8]["n"] = "x" * (2 << 20)
    del items[9]["customer"]
    failures: list[Failure] = []
    pipeline = Pipeline("sunk", IterableProducer(items), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[Any]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    sink = StreamSink(stream_name, key=key, encode=lambda data: json.dumps(data).encode())
    pipeline.sink("out", sink, size=10)
    async with Environment(broker.url) as environment:
        with anyio.fail_after(PATIENCE):
            result = await pipeline.run(environment=environment)
        found = {
            name: [json.loads(body)["n"] for _, _, body in await contents(environment, name)]
            for name in partitions
        }
    assert result.settled == {"ok": 15, "discarded": 5}
    assert sorted(items.index(failure.message.data) for failure in failures) == [4, 5, 6, 8, 9]
    assert found == {
        name: [
            n
            for n, item in enumerate(items)
            if n not in {4, 5, 6, 8, 9} and hash_route(str(item["customer"]), partitions) == name
        ]
        for name in partitions
    }


async def test_routing_keys_lead_to_their_partitions(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("creating one takes RabbitMQ 3.13")
    failures: list[Failure] = []
    items = [{"region": region} for region in ("eu", "us", "asia", "eu")]
    pipeline = Pipeline("sunk", IterableProducer(items), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[Any]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    pipeline.sink("out", StreamSink(stream_name, key="region"), size=4)
    async with Environment(broker.url) as environment:
        await environment.create_super_stream(stream_name, partitions=["eu", "us"])
        with anyio.fail_after(PATIENCE):
            result = await pipeline.run(environment=environment)
        found = [
            [
                json.loads(body)["region"]
                for _, _, body in await contents(environment, f"{stream_name}-{key}")
            ]
            for key in ("eu", "us")
        ]
        await environment.delete_super_stream(stream_name)
    assert result.settled == {"ok": 3, "discarded": 1}, failures
    assert found == [["eu", "eu"], ["us"]]
    assert "bound with the key 'asia'" in failures[0].reason


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"key": ""}, "key='': expected the name of a field or a function"),
        ({"key": 7}, "key=7: expected the name of a field or a function"),
        ({"key": partial(nothing)}, "key=functools.partial("),
        ({"routing": "hash"}, "routing='hash': it needs key="),
        ({"key": "k", "routing": "round"}, 'routing=\'round\': expected "hash" or "key", or None'),
        ({"max_unconfirmed": 0}, "max_unconfirmed=0: expected a whole number of at least 1"),
        ({"max_unconfirmed": float("nan")}, "max_unconfirmed=nan: expected a whole number"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"StreamSink > {says}")):
        StreamSink("s", **options)


async def test_a_stream_that_was_missing_for_long_is_published_to_again(
    broker: Broker, stream_name: str
) -> None:
    """Its publisher has given up by then; messages before it fail quickly, with that reason."""
    target, traces = f"{stream_name}.out", list[int]()
    pipeline = Pipeline("sunk", StreamProducer(stream_name), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        assert isinstance(failure.error, PublishFailed | StreamDoesNotExist)
        traces.append(len(traceback.extract_tb(failure.error.__traceback__)))

    pipeline.sink("out", StreamSink(target), size=1, batch_timeout=0.01)
    async with Environment(broker.url, missing_timeout=0.5) as environment:
        await environment.create_stream(stream_name)
        await environment.create_stream(target)
        async with (
            pipeline.start(environment=environment) as running,
            environment.publisher(stream_name) as publisher,
        ):

            async def sent(body: bytes, outcome: str, count: int) -> None:
                await publisher.publish(body)
                with anyio.fail_after(PATIENCE):
                    while running.statistics().settled.get(outcome, 0) < count:
                        await anyio.sleep(0.01)

            await sent(b"before", "ok", 1)
            await environment.delete_stream(target)
            for number in range(30):
                await sent(b"missing", "discarded", number + 1)
            await environment.create_stream(target)
            await sent(b"after", "ok", 2)
            running.stop()
        assert [body for _, _, body in await contents(environment, target)] == [b"after"]
        await environment.delete_stream(target)
    assert max(traces) <= 2 * traces[1]  # an exception that is raised again grows no traceback


@pytest.mark.parametrize("end", ["sink", "dead letters"])
async def test_two_ends_do_not_publish_to_a_stream_under_one_reference(end: str) -> None:
    letters = DeadLetter("out", exactly_once=True, reference="shared")
    pipeline = Pipeline(
        "twice", StreamProducer("in"), on_failure=letters if end == "dead letters" else Drop()
    )

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        message.to("one")

    pipeline.sink("one", StreamSink("out", exactly_once=True, reference="shared"))
    if end == "sink":
        pipeline.sink("two", StreamSink("out", exactly_once=True, reference="shared"))
    environment = MemoryEnvironment()
    await environment.create_stream("in")
    await environment.create_stream("out")
    with pytest.raises(ConfigurationError, match="give one of them another reference"):
        with anyio.fail_after(PATIENCE):
            await pipeline.run(environment=environment)


ENDINGS = [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, asyncio.CancelledError]


async def copied(
    memory: MemoryEnvironment, target: str, sink: StreamSink
) -> tuple[RunResult, list[int]]:
    """Copy the numbers from 0 to 29; the result, and what is in the target then."""
    memory.append("in", [{"n": n} for n in range(30)])
    pipeline = Pipeline("copy", StreamProducer("in"), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    pipeline.sink("out", sink, size=10, batch_timeout=0.01)
    with anyio.fail_after(PATIENCE):
        async with pipeline.start(environment=memory) as running:
            await running.wait_idle(0.05)
            running.stop()
            result = await running.wait()
    return result, sorted(json.loads(body)["n"] for body in memory.stream(target).bodies)


@pytest.mark.parametrize("error", ENDINGS)
@pytest.mark.parametrize("once", [True, False])
async def test_whatever_encode_raises_only_its_message_fails(
    once: bool, error: type[BaseException]
) -> None:
    """StopIteration, which `next` raises, ends a loop that runs in C: messages would be missing."""

    def encode(data: dict[str, int]) -> bytes:
        if data["n"] in (3, 7, 20):
            raise error
        return json.dumps(data).encode()

    sink = StreamSink("out", encode=encode, exactly_once=once)
    result, found = await copied(MemoryEnvironment(), "out", sink)
    assert result.settled == {"ok": 27, "discarded": 3}
    assert found == [n for n in range(30) if n not in (3, 7, 20)]


@pytest.mark.medium
@pytest.mark.parametrize("once", [True, False])
async def test_a_broker_that_is_away_when_it_is_asked_for_a_route_costs_no_message(
    once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryEnvironment()
    memory.super_stream("out", ["a"])
    route, away = MemorySuperStreamPublisher.partitions_of, [4, 5, 11]

    async def partitions_of(publisher: MemorySuperStreamPublisher, key: str) -> Sequence[str]:
        away[:] = [number - 1 for number in away]
        if 0 in away:
            raise ConnectionFailed("it is away")
        return await route(publisher, key)

    monkeypatch.setattr(MemorySuperStreamPublisher, "partitions_of", partitions_of)
    sink = StreamSink("out", key=lambda message: "a", routing="key", exactly_once=once)
    result, found = await copied(memory, "out-a", sink)
    assert max(away) < 0
    assert result.settled == {"ok": 30}
    assert found == [*range(30)]


async def test_a_partition_that_is_gone_ends_the_run_and_no_message_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = MemoryEnvironment()
    memory.super_stream("out", 2)
    publisher = MemoryEnvironment.publisher

    def opened(self: MemoryEnvironment, stream: str, **options: Any) -> Any:
        if stream == "out-1":
            raise StreamDoesNotExist(f"{stream} does not exist", stream=stream)
        return publisher(self, stream, **options)

    monkeypatch.setattr(MemoryEnvironment, "publisher", opened)
    sink = StreamSink("out", key="n", exactly_once=True)
    result, _ = await copied(memory, "out-0", sink)
    assert isinstance(result.error, StreamDoesNotExist)
    assert (result.reason, result.settled, result.unsettled) == ("failed", {}, 30)
