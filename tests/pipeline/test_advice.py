"""What a declaration is warned of: options that work, and do not fit each other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream import Backoff, Batch, Message, Pipeline, Retry
from flowstream.pipeline import Rolling, RunContext, Sink
from flowstream.telemetry import Event, Telemetry, Warned
from tests.support.pipelines import MemoryStream

MIB = 1 << 20


def declared(
    *batchers: dict[str, Any], processor: dict[str, Any] | None = None, **options: Any
) -> Pipeline:
    pipeline = Pipeline("shop", MemoryStream([b"1", b"2"]), **options)

    @pipeline.processor(**processor or {})
    async def handle(message: Message[bytes]) -> None: ...

    for number, each in enumerate(batchers):
        options = {"name": f"b{number}"} | each

        @pipeline.batcher(options.pop("name"), **options)
        async def load(batch: Batch[bytes]) -> None: ...

    return pipeline


def found(pipeline: Pipeline) -> list[str]:
    return [str(each) for each in pipeline.advice()]


def by_key(message: Message[bytes]) -> int:
    return 0


FITTING: list[Pipeline] = [
    declared(),
    declared({}, {}),
    declared({"size": 500}, {"size": 500}, max_in_flight=1000),
    declared({"size": 250, "concurrency": 4}, max_in_flight=1000),
    declared({"size": 250, "concurrency": 4}, max_in_flight=1000, partition_by=by_key),
    declared({"max_bytes": 32 * MIB}, {"max_bytes": 32 * MIB}),
    declared({"size": (0, lambda message, count: (False, count))}, max_in_flight=10),
    declared({"timeout": 25}, {"timeout": 25}),
    declared({"timeout": 15}, processor={"timeout": 10}),
    declared({"batch_timeout": 300}),  # a stop closes open batches at once
    declared(retry=Retry(attempts=3)),
    declared(retry=Retry(attempts=1, backoff=Backoff(initial=60, maximum=60))),
]
ADVISED: list[tuple[Pipeline, list[str]]] = [
    (
        declared({"size": 500}, {"size": 501}, max_in_flight=1000),
        ["max_in_flight=1,000", "'b0' 500 + 'b1' 501 = 1,001 messages", "to at least 1,001"],
    ),
    (
        declared({"size": 300, "concurrency": 4, "partition_by": by_key}, max_in_flight=1000),
        ["max_in_flight=1,000 is less", "'b0' 4 x 300 = 1,200 messages"],
    ),
    (
        declared(
            {"size": 300, "concurrency": 2},
            {"size": 500},
            max_in_flight=1000,
            partition_by=by_key,
        ),
        ["'b0' 2 x 300 + 'b1' 500 = 1,100 messages"],
    ),
    (
        declared({"size": 300, "concurrency": 4}, max_in_flight=1000),
        ["b0: concurrency=4 batches of size=300 are 1,200 messages", "no more than 3 full batches"],
    ),
    (
        declared({"max_bytes": 40 * MIB}, {"max_bytes": 40 * MIB}),
        ["max_in_flight_bytes=67,108,864", "= 83,886,080 bytes"],
    ),
    (
        declared({"max_bytes": 65 * MIB}),
        ["max_in_flight_bytes=67,108,864", "'b0' 68,157,440 = 68,157,440 bytes"],
    ),
    (
        declared(processor={"timeout": 30}),
        ["processor: timeout=30 is longer than drain_timeout=25", "raise drain_timeout to at le"],
    ),
    (
        declared({"timeout": 60}, drain_timeout=40),
        ["b0: timeout=60 is longer than drain_timeout=40", "at least 60"],
    ),
    (
        declared({"timeout": 10}, {"timeout": 20}, processor={"timeout": 6}),
        ["timeout=6 of 'processor' and timeout=20 of 'b1' are 26 s", "drain_timeout=25"],
    ),
    (
        declared(retry=Retry(attempts=20)),
        ["retry: the last of 20 attempts may wait 30 s, longer than drain_timeout=25"],
    ),
]


@pytest.mark.parametrize("pipeline", FITTING, ids=range(len(FITTING)))
def test_what_fits(pipeline: Pipeline) -> None:
    assert found(pipeline) == []


@pytest.mark.parametrize(("pipeline", "texts"), ADVISED, ids=range(len(ADVISED)))
def test_what_does_not_fit(pipeline: Pipeline, texts: list[str]) -> None:
    (said,) = found(pipeline)
    for text in texts:
        assert text in said


def test_several_things_that_do_not_fit() -> None:
    pipeline = declared(
        {"size": 60, "timeout": 30}, {"size": 60}, processor={"timeout": 40},
        max_in_flight=100, retry=Retry(attempts=9, backoff=Backoff(initial=90, maximum=90)),
    )  # fmt: skip
    subjects = [each.subject for each in pipeline.advice()]
    assert subjects == ["max_in_flight", "processor", "b0", "retry"]


def test_options_that_a_deployment_configures_count() -> None:
    pipeline = declared({"size": 500}, {"size": 500})
    assert found(pipeline) == []
    pipeline.configure(max_in_flight=900)
    assert "max_in_flight=900" in found(pipeline)[0]


@pytest.mark.anyio
async def test_a_start_logs_it_and_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = declared({"name": "default", "size": 60}, {"size": 60}, max_in_flight=100)
    warned: list[Event] = []

    class Seen:
        def observe(self, event: Event, /) -> None:
            if isinstance(event, Warned):
                warned.append(event)

    with caplog.at_level(logging.WARNING), anyio.fail_after(5):
        await pipeline.run(telemetry=Telemetry(Seen()))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("pipeline 'shop': max_in_flight=100 is")
    assert vars(record)["pipeline"] == "shop"
    (advice,) = pipeline.advice()
    assert warned == [Warned("shop", "max_in_flight", str(advice))]


@pytest.mark.anyio
async def test_what_is_warned_of_comes_true() -> None:
    """Two batches that do not fit into the window together: neither gets full."""
    pipeline = Pipeline("shop", MemoryStream([b"%d" % n for n in range(200)]), max_in_flight=100)
    sizes: list[int] = []

    @pipeline.processor
    async def route(message: Message[bytes]) -> None:
        message.to("even" if message.offset % 2 == 0 else "odd")

    @pipeline.batcher("even", size=60, batch_timeout=30)
    async def even(batch: Batch[bytes]) -> None:
        sizes.append(batch.size)

    @pipeline.batcher("odd", size=60, batch_timeout=30)
    async def odd(batch: Batch[bytes]) -> None:
        sizes.append(batch.size)

    assert pipeline.advice()
    with anyio.fail_after(5):
        await pipeline.run()
    assert max(sizes) < 60
    assert sum(sizes) == 200


class Hourly(Sink):
    rolling = Rolling(window=3600.0)  # type: ignore[assignment]

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        yield None


def test_a_batch_of_an_hour_needs_a_window_of_an_hour() -> None:
    pipeline = Pipeline("shop", MemoryStream([b"1"]))
    pipeline.sink("files", Hourly())
    (advice,) = found(pipeline)
    assert "max_in_flight=10,000 admits 2.78 messages for each second" in advice
    assert "360,000" in advice
    pipeline.configure(max_in_flight=360_000)
    assert found(pipeline) == []
