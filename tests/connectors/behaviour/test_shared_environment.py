"""Several pipelines in one process, over one environment."""

from __future__ import annotations

from collections import defaultdict

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, StreamProducer
from flowstream.errors import Halted
from flowstream.metrics import Metrics
from flowstream.pipeline import RunResult
from flowstream.telemetry import Telemetry
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, numbers, until

pytestmark = pytest.mark.anyio


async def test_pipelines_share_an_environment_and_nothing_else(
    broker: Broker, stream_name: str
) -> None:
    """Three read one stream under their own names; one of them halts, the others read on."""
    seen: defaultdict[str, list[int]] = defaultdict(list)
    offsets: dict[str, int] = {}
    results: dict[str, RunResult] = {}

    def reading(name: str, halt_at: int | None = None) -> Pipeline:
        pipeline = Pipeline(name, StreamProducer(stream_name))

        @pipeline.processor
        async def handle(message: Message[dict[str, int]]) -> None:
            if message.data["n"] == halt_at:
                message.fail("on purpose")
                return
            seen[name].append(message.data["n"])
            offsets[name] = message.offset

        return pipeline

    async def run(environment: Environment, pipeline: Pipeline) -> None:
        async with pipeline.start(environment=environment) as running:
            if pipeline.name != "halts":
                await until(lambda: len(seen[pipeline.name]) >= 400)
                running.stop()
            results[pipeline.name] = await running.wait()

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(200))
            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as group:
                    for pipeline in (reading("a"), reading("b"), reading("halts", 50)):
                        group.start_soon(run, environment, pipeline)
                    await until(lambda: "halts" in results)
                    await publisher.publish_many(numbers(200, 200))
        assert isinstance(results["halts"].error, Halted)
        assert results["a"].settled == results["b"].settled == {"ok": 400}
        for name, count in (("a", 400), ("b", 400), ("halts", 50)):
            assert seen[name] == list(range(count))
            # The offset of the last message: a stored offset takes a place in the stream itself.
            assert await environment.query_offset(name, stream_name) == offsets[name]


async def test_the_gauges_of_a_stream_are_those_of_all_its_consumers(
    broker: Broker, stream_name: str
) -> None:
    metrics = Metrics()

    def credit() -> float:
        labels = {"stream": stream_name}
        return metrics.registry.get_sample_value("flowstream_credits", labels) or 0

    async def run(environment: Environment, name: str, ended: anyio.Event) -> None:
        pipeline = Pipeline(name, StreamProducer(stream_name))

        @pipeline.processor
        async def handle(message: Message[bytes]) -> None: ...

        async with pipeline.start(environment=environment) as running:
            await until(lambda: running.statistics().settled == {"ok": 1})
            await ended.wait()

    async with Environment(broker.url, telemetry=Telemetry(metrics)) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish(b"1")
        first, second = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(run, environment, "a", first)
            group.start_soon(run, environment, "b", second)
            await until(lambda: credit() > 10)  # one alone has 10 at most
            first.set()
            await until(lambda: 0 < credit() <= 10)
            second.set()
