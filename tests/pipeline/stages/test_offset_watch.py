"""A stored offset that moves while a run holds it, in memory and in virtual time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flowstream import Message, Pipeline, Producer
from flowstream.pipeline import Intake
from flowstream.pipeline.delivery import REMEMBERED, OffsetTracker
from flowstream.pipeline.stages import offset_watch
from flowstream.telemetry import Event, OffsetMoved, Telemetry
from flowstream.testing import virtual_time

virtual = pytest.mark.parametrize("anyio_backend", [virtual_time()], ids=["virtual"])


def test_what_a_run_has_stored_is_its_own() -> None:
    tracker = OffsetTracker()
    tracker.open()
    tracker.resume(5)
    assert tracker.is_own(5)
    assert tracker.is_own(None)
    assert not tracker.is_own(-1)
    assert not tracker.is_own(6)
    tracker.storing(9)
    assert tracker.is_own(9)  # it may arrive before the run knows that it was sent
    tracker.store(9)
    assert tracker.is_own(5)  # a new leader may not have the last one
    assert not tracker.is_own(7)


def test_a_run_that_found_nothing_may_find_that_not_even_offset_0_is_settled() -> None:
    tracker = OffsetTracker()
    tracker.resume(None)
    assert tracker.is_own(-1)
    assert not tracker.is_own(0)
    assert tracker.committed is None


def test_what_is_remembered_is_bounded() -> None:
    tracker = OffsetTracker()
    tracker.resume(0)
    for offset in range(1, 2 * REMEMBERED):
        tracker.storing(offset)
    assert tracker.is_own(2 * REMEMBERED - 1)
    assert not tracker.is_own(0)


class Stored(Producer):
    """Sends a message a second, and keeps the stored offset where a test can move it."""

    def __init__(self, *streams: str, stored: int | None = None) -> None:
        self.streams = streams
        self.offsets: dict[str, Any] = dict.fromkeys(streams, stored)
        self.asked: list[str] = []
        self.broken: BaseException | None = None

    async def run(self, intake: Intake) -> None:
        partitions = [intake.open(each, committed=self.offsets[each]) for each in self.streams]
        while True:
            for partition in partitions:
                await partition.send([b"x"])
            await anyio.sleep(1)

    async def commit(self, stream: str, offset: int) -> None:
        self.offsets[stream] = offset

    async def stored_offset(self, stream: str) -> int | None:
        self.asked.append(stream)
        if self.broken is not None:
            raise self.broken
        found: int | None = self.offsets[stream]
        return found


async def watched(
    producer: Producer,
    seconds: float,
    meanwhile: Callable[[], None] = lambda: None,
    *,
    commit_interval: float = 4,
) -> list[OffsetMoved]:
    """Run a pipeline for so long, with something that happens after half of it."""
    pipeline = Pipeline("shop", producer, commit_interval=commit_interval)
    moved: list[OffsetMoved] = []

    class Seen:
        def observe(self, event: Event, /) -> None:
            if isinstance(event, OffsetMoved):
                moved.append(event)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    async with pipeline.start(telemetry=Telemetry(Seen())) as running:
        await anyio.sleep(seconds / 2)
        meanwhile()
        await anyio.sleep(seconds / 2)
        running.stop()
        (await running.wait()).raise_for_error()
    return moved


@virtual
@pytest.mark.anyio
@pytest.mark.parametrize("stored", [None, -1, 41])
async def test_what_only_this_run_stores_is_no_alarm(stored: int | None) -> None:
    producer = Stored("a", "b", stored=stored)
    assert await watched(producer, 120) == []
    assert len(producer.asked) >= 2 * 120 / offset_watch.LOOK - 2


@virtual
@pytest.mark.anyio
async def test_an_offset_that_moves_is_told(caplog: pytest.LogCaptureFixture) -> None:
    producer = Stored("a", "b")

    def move() -> None:
        producer.offsets["b"] = 10_000

    with caplog.at_level(logging.WARNING):
        moved = await watched(producer, 10, move)
    assert {(each.stream, each.reference, each.found) for each in moved} == {("b", "shop", 10_000)}
    (record,) = caplog.records
    said = record.getMessage()
    assert "something else stores offsets of 'b' under the reference 'shop'" in said
    assert f"this run stored {moved[0].expected}, and now 10000 is stored" in said
    assert "stop one of the runs" in said
    assert (vars(record)["stream"], vars(record)["offset"]) == ("b", 10_000)


@virtual
@pytest.mark.anyio
async def test_the_end_of_a_run_looks_before_it_stores() -> None:
    """Also in a run that is over before the first look."""
    producer = Stored("a", stored=41)

    def move() -> None:
        producer.offsets["a"] = 7

    (moved,) = await watched(producer, 2, move)
    assert (moved.expected, moved.found) == (41, 7)
    assert producer.offsets["a"] > 41


@virtual
@pytest.mark.anyio
async def test_a_second_run_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    producer = Stored("a")
    other = iter(range(1_000_000, 2_000_000))

    class Shared(Stored):
        async def stored_offset(self, stream: str) -> int | None:
            await super().stored_offset(stream)
            return next(other)

    producer = Shared("a")
    with caplog.at_level(logging.WARNING):
        moved = await watched(producer, 301)
    assert len(moved) >= 300 / offset_watch.LOOK - 1
    assert 5 <= len(caplog.records) <= 6


@virtual
@pytest.mark.anyio
async def test_an_offset_that_cannot_be_read_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer = Stored("a")
    producer.broken = BaseExceptionGroup("broken", [OSError("gone")])
    with caplog.at_level(logging.WARNING):
        assert await watched(producer, 60) == []
    assert caplog.records == []


@pytest.mark.medium
@virtual
@pytest.mark.anyio
async def test_many_streams_take_turns() -> None:
    streams = [f"s{number}" for number in range(3 * offset_watch.MOST)]
    producer = Stored(*streams)
    await watched(producer, 4 * offset_watch.LOOK, commit_interval=3600)
    periodic = producer.asked[: 3 * offset_watch.MOST]
    assert {*periodic} == {*streams}
    # at most five looks, and one at each stream before the last commit
    assert len(producer.asked) <= 5 * offset_watch.MOST + len(streams)
