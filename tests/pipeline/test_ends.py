"""The guarantee of each end of a pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from flowstream import (
    Batch,
    DeadLetter,
    Drop,
    FileSink,
    IterableProducer,
    Message,
    Pipeline,
    SqliteSink,
    StreamProducer,
    StreamSink,
)
from flowstream.pipeline import RunContext, Sink, ends_of


class Mine(Sink):
    @contextlib.asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        yield None


def levels(pipeline: Pipeline) -> dict[str, str]:
    return {end.name: end.guarantee.level for end in ends_of(pipeline.declaration)}


def pipeline_with(**sinks: Sink) -> Pipeline:
    pipeline = Pipeline("p", StreamProducer("s"), on_failure=DeadLetter("s.dead"))

    @pipeline.processor
    async def check(message: Message[dict[str, Any]]) -> None: ...

    for name, sink in sinks.items():
        pipeline.sink(name, sink)
    return pipeline


def test_every_sink_says_its_own() -> None:
    columns = {"n": int}
    found = levels(
        pipeline_with(
            rows=SqliteSink("x.db", "t", columns=columns),
            repeated=SqliteSink("x.db", "u", columns=columns, exactly_once=False),
            files=FileSink("x", format="ndjson"),
            stream=StreamSink("t"),
            mine=Mine(),
        )
    )
    assert found == {
        "rows": "exactly once",
        "repeated": "at least once",
        "files": "exactly once",
        "stream": "at least once",
        "mine": "at least once",
        "failures": "at least once",
        "offsets": "at least once",
    }


def test_handlers_are_called_at_least_once_with_the_way_out() -> None:
    pipeline = pipeline_with()
    assert levels(pipeline) == dict.fromkeys(["processor", "failures", "offsets"], "at least once")

    @pipeline.batcher("load")
    async def load(batch: Batch[dict[str, Any]]) -> None: ...

    (end, *_) = ends_of(pipeline.declaration)
    assert (end.name, end.kind, end.guarantee.level) == ("load", "handler", "at least once")
    assert "ExactlyOnce" in end.guarantee.remedy
    assert end.guarantee.reason


def test_what_is_dropped_is_there_at_most_once() -> None:
    pipeline = Pipeline("p", StreamProducer("s"), on_failure=Drop())
    pipeline.sink("files", FileSink("x", format="ndjson"))
    assert levels(pipeline)["failures"] == "at most once"


def test_a_source_without_offsets_leaves_no_guarantee() -> None:
    pipeline = Pipeline("p", IterableProducer([1]))
    pipeline.sink("files", FileSink("x", format="ndjson"))
    found = {end.name: end.guarantee for end in ends_of(pipeline.declaration)}
    assert {it.level for it in found.values()} == {"no guarantee"}
    assert "IterableProducer stores no offsets" in found["files"].reason
    assert "StreamProducer" in found["files"].remedy
