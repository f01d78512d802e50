"""Dead letters into a pipeline's own source are refused; a sink into it is warned of."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flowstream import (
    DeadLetter,
    Failure,
    Halt,
    IterableProducer,
    Message,
    Pipeline,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.errors import ConfigurationError, Halted
from flowstream.testing import MemoryEnvironment

pytestmark = pytest.mark.anyio


def pipeline_of(producer: Any, **options: Any) -> Pipeline:
    pipeline = Pipeline("shop", producer, **options)

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None:
        if message.data["n"] == 1:
            raise ValueError("poison")

    return pipeline


@pytest.mark.parametrize("producer", [StreamProducer("orders"), SuperStreamProducer("orders")])
async def test_dead_letters_into_the_source_are_refused(producer: StreamProducer) -> None:
    pipeline = pipeline_of(producer, on_failure=DeadLetter("orders"))
    with pytest.raises(
        ConfigurationError, match=r"on_failure: DeadLetter.* 'orders', which .* reads"
    ):
        pipeline.check()
    with pytest.raises(ConfigurationError, match=r"such as 'orders\.dead'"):
        await pipeline.run(environment=MemoryEnvironment({"orders": []}))


async def test_dead_letters_into_a_partition_of_the_source_are_refused() -> None:
    environment = MemoryEnvironment()
    partition = environment.super_stream("orders")[1]
    pipeline = pipeline_of(SuperStreamProducer("orders"), on_failure=DeadLetter(partition))
    pipeline.check()
    with pytest.raises(ConfigurationError, match=f"'{partition}', which the pipeline reads"):
        await pipeline.run(environment=environment)


async def test_a_policy_chosen_later_halts_instead() -> None:
    environment = MemoryEnvironment({"orders": [{"n": 0}, {"n": 1}]})
    pipeline = pipeline_of(StreamProducer("orders"), on_failure=Halt())

    @pipeline.on_failed
    async def choose(failure: Failure) -> DeadLetter:
        return DeadLetter("orders")

    with pytest.raises(Halted, match="which the pipeline reads") as halted:
        await pipeline.run(environment=environment)
    assert halted.value.offset == 1
    assert environment.stream("orders").last_offset == 1


@pytest.mark.parametrize("producer", [StreamProducer("orders"), SuperStreamProducer("orders")])
async def test_a_sink_into_the_source_is_warned_of(
    caplog: pytest.LogCaptureFixture, producer: StreamProducer
) -> None:
    pipeline = pipeline_of(producer)
    pipeline.sink("again", StreamSink("orders"))
    with caplog.at_level(logging.WARNING):
        async with pipeline.start(environment=MemoryEnvironment({"orders": []})) as running:
            running.stop()
    assert "a sink publishes into orders, which the pipeline reads" in caplog.text


async def test_an_iterable_is_no_stream_that_anything_could_come_back_to() -> None:
    environment = MemoryEnvironment()
    pipeline = pipeline_of(
        IterableProducer([{"n": 1}], stream="orders"),
        on_failure=DeadLetter("orders", max_ratio=None),
    )
    result = await pipeline.run(environment=environment)
    assert result.settled == {"dead_lettered": 1}
