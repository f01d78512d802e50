"""What a producer may send, and what it says of its streams."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import (
    Intake,
    IterableProducer,
    Message,
    Pipeline,
    Producer,
    RunContext,
)
from tests.support.pipelines import MemoryStream, numbers


def test_a_producer_does_not_know_its_streams_unless_it_says_so() -> None:
    assert MemoryStream([]).reads() is None
    assert issubclass(MemoryStream, Producer)


pytestmark = pytest.mark.anyio


COUNT, AT = 250, 230


def over(iterable: Any, **options: Any) -> tuple[Pipeline, list[Any]]:
    """A pipeline over an iterable, and what it has handled."""
    options = {"slice_size": 100} | options
    producer = iterable if isinstance(iterable, Producer) else IterableProducer(iterable, **options)
    pipeline = Pipeline("test", producer)
    seen: list[Any] = []

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        seen.append(message.data)

    return pipeline, seen


def generator(error: BaseException) -> Iterator[int]:
    for n in range(COUNT):
        if n == AT:
            raise error
        yield n


class Lines(Producer):
    """Ten numbers, five at a time; fails in front of the second five, `failures` times."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or OSError("gone")
        self.runs = 0
        self.stored: list[int] = []

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        partition = intake.open("lines")
        for first in (0, 5):
            if first and self.failures:
                self.failures -= 1
                raise self.error
            await partition.send(numbers(10)[first : first + 5], offset=first)

    async def commit(self, stream: str, offset: int) -> None:
        self.stored.append(offset)


async def test_what_a_lane_cannot_take_is_refused_instead_of_taken_for_something_else() -> None:
    class Sends(Producer):
        def __init__(self, bodies: Any, **options: Any) -> None:
            self.bodies, self.options = bodies, options

        async def run(self, intake: Intake) -> None:
            await intake.open("lines").send(self.bodies, **self.options)

    for producer, told in (
        (Sends(b"line"), r"send takes a list of bodies, got b'line'"),
        (Sends("line"), r"send takes a list of bodies, got 'line'"),
        (Sends(None), r"send takes a list of bodies, got None"),
        (Sends(n for n in [b"1"]), r"send takes a list of bodies, got <generator"),
        (Sends([b"1", b"2"], offsets=[5]), r"2 bodies were sent with 1 offsets"),
        (Sends([b"1", b"2"], offsets=[]), r"2 bodies were sent with 0 offsets"),
        (Sends([b"1", b"2"], offsets=[5, 5]), r"offsets must ascend, got \[5, 5\]"),
        (Sends([b"1", b"2"], offsets=[6, 5]), r"offsets must ascend, got \[6, 5\]"),
        (Sends([b"1"], timestamp=datetime.now(UTC)), r"timestamp=datetime.*milliseconds"),
        (Sends([b"1"], timestamp="2026-11-30"), r"timestamp='2026-11-30': expected the number"),
        (Sends([b"1"], timestamp=math.nan), r"timestamp=nan"),
        (Sends([b"1"], timestamp=None), r"timestamp=None"),
    ):
        pipeline, seen = over(producer)
        with pytest.raises(ConfigurationError, match=f"partition 'lines': {told}"):
            await pipeline.run()
        assert seen == []


async def test_offsets_go_on_behind_the_committed_one_where_none_is_given() -> None:
    class GoesOn(Lines):
        async def run(self, intake: Intake) -> None:
            partition = intake.open("lines", committed=41)
            await partition.send(numbers(5))
            await partition.send(numbers(5))

    producer = GoesOn(0)
    pipeline, _ = over(producer)
    assert (await pipeline.run()).committed == {"lines": 51}
    assert producer.stored[-1] == 51


class Connected(MemoryStream):
    """Connects as a client with background tasks does."""

    closed = False

    async def open(self, context: RunContext) -> None:
        await super().open(context)
        self.tasks = await anyio.create_task_group().__aenter__()
        self.tasks.start_soon(anyio.sleep_forever)

    async def close(self) -> None:
        self.tasks.cancel_scope.cancel()
        await self.tasks.__aexit__(None, None, None)
        self.closed = True


@pytest.mark.parametrize("how", ["end", "abort", "cancel"])
async def test_what_a_producer_opens_is_closed_in_the_scopes_in_which_it_was_opened(
    how: str,
) -> None:
    producer = Connected(numbers(3))
    pipeline = Pipeline("test", producer)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if how == "abort":
            assert pipeline.running is not None
            pipeline.running.abort()
        await anyio.sleep(60 if how == "cancel" else 0)

    with anyio.move_on_after(1 if how == "cancel" else 100):
        await pipeline.run()
    assert producer.closed
