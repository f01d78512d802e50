"""A sink is a batcher: its failures have a phase of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import (
    Batch,
    Drop,
    Message,
    RunContext,
    Sink,
    Write,
)
from tests.support.pipelines import n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


def kinds(function):
    """The same handler as `async def` and as `def`."""

    async def as_async(message: Message[dict]):
        return function(message)

    def as_sync(message: Message[dict]):
        return function(message)

    return as_async, as_sync


async def test_a_sink_is_a_batcher_whose_failures_have_their_own_phase():
    written, failures = [], []

    class List(Sink):
        @asynccontextmanager
        async def writer(self, context):
            async def write(batch):
                if n_of(batch.messages[0]) == 4:
                    raise ConnectionError("gone")
                written.extend(batch.data)

            yield write

    pipeline = pipeline_of(8, on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.sink("out", List(), size=4)
    pipeline.on_failed(lambda failure: failures.append(failure))
    assert (await pipeline.run()).settled == {"ok": 4, "discarded": 4}
    assert {f.phase for f in failures} == {"sink"}
    assert written == [{"n": n} for n in range(4)]


class NotOpened(Sink):
    async def writer(self, context):  # without @asynccontextmanager
        """Returns nothing that can be opened."""


class Blocking(Sink):
    @asynccontextmanager
    async def writer(self, context):
        yield lambda batch: None


async def test_what_a_sink_s_author_has_forgotten_is_named():
    pipeline = pipeline_of(1)
    pipeline.sink("out", NotOpened())
    with pytest.raises(ConfigurationError, match=r"sink 'out' > writer: .*@asynccontextmanager"):
        await pipeline.run()
    pipeline = pipeline_of(1, on_failure=Drop())
    pipeline.sink("out", Blocking())
    (reason,) = (await pipeline.run()).reasons
    assert reason.text == "TypeError: what a sink writes batches with must be an async def"


class Written(Sink):
    """A sink that keeps the data of its batches."""

    def __init__(self) -> None:
        self.data: list[Any] = []

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Write]:
        async def write(batch: Batch[Any]) -> None:
            self.data += [message.data for message in batch.messages]

        yield write


async def test_a_sink_without_a_processor_gets_bodies() -> None:
    pipeline, sink = pipeline_of(3), Written()
    pipeline.sink("copy", sink)
    await pipeline.run()
    assert sink.data == numbers(3)
