"""An environment that is closed under a running pipeline ends the run, and costs no message."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import (
    Batch,
    Drop,
    Environment,
    IterableProducer,
    Message,
    Pipeline,
    Producer,
    Retry,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.errors import ConfigurationError, EnvironmentClosed, FlowstreamError
from flowstream.pipeline import RunResult
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, numbers

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]


async def run_until_closed(pipeline: Pipeline, url: str, busy: anyio.Event | None) -> RunResult:
    """The result of a run whose environment is closed while it is idle, or once it is `busy`."""
    results: list[RunResult] = []
    running_now = anyio.Event()

    async def run(env: Environment) -> None:
        async with pipeline.start(environment=env) as running:
            running_now.set()
            results.append(await running.wait())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group, Environment(url, name="shared") as env:
            group.start_soon(run, env)
            await (busy or running_now).wait()
    (result,) = results
    return result


def refused(result: RunResult, pipeline: str) -> None:
    assert isinstance(result.error, EnvironmentClosed)
    assert result.reason == "failed"
    assert f"while pipeline {pipeline!r} was running" in str(result.error)
    assert 'environment "shared" was closed by the task' in str(result.error)


@pytest.mark.parametrize("handling", [False, True])
async def test_the_run_ends_and_says_who_closed_it(
    broker: Broker, stream_name: str, handling: bool
) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(5))
    busy = anyio.Event()
    pipeline = Pipeline("shop", StreamProducer(stream_name), drain_timeout=2)

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None:
        busy.set()
        await anyio.sleep(0.1)

    refused(await run_until_closed(pipeline, broker.url, busy if handling else None), "shop")


@pytest.mark.parametrize("single_active", [False, True])
async def test_a_run_over_a_super_stream_ends(
    broker: Broker, stream_name: str, single_active: bool
) -> None:
    if broker.version < (3, 13):
        pytest.skip("made with a super stream of RabbitMQ 3.13 or later")
    async with Environment(broker.url) as env:
        await env.create_super_stream(stream_name, partitions=2)
    producer = SuperStreamProducer(stream_name, single_active=single_active)
    pipeline = Pipeline("shop", producer)

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    refused(await run_until_closed(pipeline, broker.url, None), "shop")
    async with Environment(broker.url) as env:
        await env.delete_super_stream(stream_name)


@pytest.mark.parametrize("retry", [None, Retry(attempts=2)])
async def test_a_batch_that_was_on_its_way_to_a_sink_is_not_dropped(
    broker: Broker, stream_name: str, retry: Retry | None
) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
    pipeline = Pipeline("shop", IterableProducer([{}] * 3), on_failure=Drop(), retry=retry)
    busy = anyio.Event()

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    @pipeline.batcher("waiting", size=3)
    async def wait(batch: Batch[dict[str, int]]) -> None:
        busy.set()
        await anyio.sleep(0.2)

    @pipeline.prepare
    async def route(messages: list[Message[dict[str, int]]]) -> None:
        for message in messages:
            message.to("waiting", "out")

    pipeline.sink("out", LateSink(stream_name, busy), size=3)
    result = await run_until_closed(pipeline, broker.url, busy)
    refused(result, "shop")
    assert result.settled == {}


class LateSink(StreamSink):
    """Publishes only once the environment was closed."""

    def __init__(self, stream: str, busy: anyio.Event) -> None:
        super().__init__(stream)
        self.busy = busy

    async def _publish(self, publisher: Any, messages: Any, tracer: Any) -> None:
        await self.busy.wait()
        opened = await publisher.opened()
        await opened._manager.state.wait(type(opened.state).CLOSED)
        await super()._publish(publisher, messages, tracer)


class Waiting(Producer):
    """Reads nothing, and knows no environment."""

    async def run(self, feed: object) -> None:
        await anyio.sleep_forever()


async def test_a_run_that_only_sinks_ends(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as env:
        await env.create_stream(stream_name)
    pipeline = Pipeline("shop", Waiting())

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    pipeline.sink("out", StreamSink(stream_name))
    refused(await run_until_closed(pipeline, broker.url, None), "shop")


async def test_a_run_refuses_an_environment_that_it_cannot_use(
    broker: Broker, stream_name: str, anyio_backend: str
) -> None:
    pipeline = Pipeline("shop", StreamProducer(stream_name))

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    async def run(env: Environment) -> Exception:
        with anyio.fail_after(PATIENCE), pytest.raises(FlowstreamError) as caught:
            await pipeline.run(environment=env)
        return caught.value

    env = Environment(broker.url, name="shared")
    error = await run(env)
    assert isinstance(error, ConfigurationError)
    assert 'environment "shared" is not open' in str(error)
    async with env:
        error = await anyio.to_thread.run_sync(lambda: anyio.run(run, env, backend=anyio_backend))
        assert isinstance(error, ConfigurationError)
        assert 'environment "shared" was opened on another event loop' in str(error)
    error = await run(env)
    assert isinstance(error, EnvironmentClosed)
    assert 'environment "shared" was closed by the task' in str(error)


@pytest.mark.parametrize("given", ["rabbitmq-stream://u:secret@localhost", Environment, 5])
async def test_what_is_no_environment_is_refused_by_its_type(given: Any) -> None:
    pipeline = Pipeline("shop", StreamProducer("orders"))

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    with pytest.raises(ConfigurationError, match="environment: expected an Environment") as caught:
        await pipeline.run(environment=given)
    assert "secret" not in str(caught.value)
