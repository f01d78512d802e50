"""Plain `def` handlers in threads that hang: reported, ended by timeouts, and never too many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import anyio
import pytest

from flowstream.errors import HandlerTimeout, ThreadsExhausted
from flowstream.pipeline import (
    Batch,
    Drop,
    Failure,
    IterableProducer,
    Message,
)
from flowstream.telemetry import HandlerStuck
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads"), pytest.mark.medium]


class Door:
    """What handlers hang at, until it is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def wait_here(self) -> None:
        self._opened.wait(60)

    def open(self) -> None:
        self._opened.set()


async def when(condition: Callable[[], bool]) -> None:
    """Looks every virtual second: threads cost every step of the clock real time."""
    with anyio.fail_after(1000):
        while not condition():
            await anyio.sleep(1)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.open()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["processor", "load", "prepare", "on_failed"])
async def test_a_handler_that_hangs_in_its_thread_is_named_with_the_line(
    where: str, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    pipeline = pipeline_of(
        MemoryStream(numbers(20), endless=True), stuck_after=30, on_failure=Drop()
    )

    def maybe(callback: str, message: Message[dict]) -> None:
        if callback == where and n_of(message) == 0:
            door.wait_here()

    @pipeline.prepare
    def prepare(messages: list[Message[dict]]) -> None:
        maybe("prepare", messages[0])

    @pipeline.processor
    def handle(message: Message[dict]) -> None:
        maybe("processor", message)
        if n_of(message) == 0:
            raise ValueError("no")

    @pipeline.on_failed
    def failed(failure: Failure) -> None:
        maybe("on_failed", failure.message)

    @pipeline.batcher("load", size=4, batch_timeout=0.1)
    def load(batch: Batch[dict]) -> None:
        if where == "load" and n_of(batch.messages[0]) == 1:
            door.wait_here()

    async with pipeline.start(telemetry=recorder.telemetry) as running:
        await anyio.sleep(29)
        assert recorder.of(HandlerStuck) == []
        await anyio.sleep(200)
        [told] = recorder.of(HandlerStuck)
        door.open()
        await when(lambda: running.statistics().settled == {"ok": 19, "discarded": 1})
    assert (told.pipeline, told.stage) == ("test", where)
    assert 30 <= told.seconds <= 38
    assert "in wait_here\n    self._opened.wait(60)" in told.where
    assert __file__ in told.where.splitlines()[0]
    name = where if where in ("prepare", "on_failed") else f"handler of {where!r}"
    assert f"{name} has not returned for 3" in caplog.text


@pytest.mark.parametrize("stage", ["processor", "load"])
async def test_a_timeout_fails_what_hangs_and_its_thread_counts_until_it_comes_back(
    stage: str, door: Door
) -> None:
    failures: list[Failure] = []
    pipeline = pipeline_of(MemoryStream(numbers(20), endless=True), on_failure=Drop())

    @pipeline.processor(timeout=5)
    def handle(message: Message[dict]) -> None:
        if stage == "processor" and n_of(message) == 7:
            door.wait_here()

    @pipeline.batcher("load", size=5, batch_timeout=0.1, timeout=5)
    def load(batch: Batch[dict]) -> None:
        if stage == "load" and n_of(batch.messages[0]) == 5:
            door.wait_here()
            batch.messages[0].settle()  # too late to mean anything

    pipeline.on_failed(lambda failure: failures.append(failure))
    late = 1 if stage == "processor" else 5
    async with pipeline.start() as running:
        await when(lambda: running.statistics().settled == {"ok": 20 - late, "discarded": late})
        assert running.statistics().hung == 1
        hung = {each.name: each.hung for each in running.statistics().stages}
        assert hung == {"processor": 0, "load": 0} | {stage: 1}
        assert running.threads.total_tokens == pipeline.options.max_threads - 1
        door.open()
        await when(lambda: not running.statistics().hung)
        await anyio.sleep(60)
        assert running.threads.total_tokens == pipeline.options.max_threads
        running.stop()
        result = await running.wait()
    assert result.hung == ()
    assert {type(failure.error) for failure in failures} == {HandlerTimeout}
    assert [n_of(failure.message) for failure in failures] == (
        [7] if late == 1 else [*range(5, 10)]
    )


async def test_when_all_threads_hang_the_run_ends_and_says_where(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    source = MemoryStream(numbers(50), endless=True)
    pipeline = pipeline_of(source, on_failure=Drop(), max_threads=3, drain_timeout=20)

    @pipeline.processor(concurrency=2, timeout=5, max_demand=1)
    def handle(message: Message[dict]) -> None:
        if n_of(message) >= 10:
            door.wait_here()

    async with pipeline.start() as running:
        result = await running.wait()
    assert isinstance(result.error, ThreadsExhausted)
    text = str(result.error)
    assert "all of max_threads=3 worker threads hang" in text
    assert "3 of 'processor'" in text
    assert "3 at\n" in text
    assert "in wait_here\n    self._opened.wait(60)" in text
    assert text in caplog.text
    assert result.hung == ("processor",) * 3
    assert result.settled == {"ok": 10, "discarded": 3}
    assert result.unsettled == 37
    assert source.stored == {"orders": 12}


async def test_threads_that_come_back_are_used_again(door: Door) -> None:
    doors = [Door() for _ in range(6)]
    pipeline = pipeline_of(MemoryStream(numbers(6), endless=True), max_threads=2, on_failure=Drop())

    @pipeline.processor(timeout=5)
    def handle(message: Message[dict]) -> None:
        doors[n_of(message)].wait_here()

    async with pipeline.start() as running:
        for count, each in enumerate(doors, 1):
            await when(lambda: running.statistics().settled == {"discarded": count})  # noqa: B023
            assert running.statistics().hung == 1
            each.open()
            await when(lambda: running.statistics().hung == 0)
        assert running.phase == "running"


async def test_waiting_for_a_thread_is_no_time_of_the_handlers() -> None:
    doors = [Door(), Door()]
    pipeline = pipeline_of(2, max_threads=1, on_failure=Drop())

    @pipeline.processor(concurrency=2, timeout=50)
    def handle(message: Message[dict]) -> None:
        doors[n_of(message)].wait_here()

    async with pipeline.start() as running:
        for door in doors:
            await anyio.sleep(40)
            door.open()
        assert (await running.wait()).settled == {"ok": 2}


async def test_a_stop_does_not_wait_for_an_iterable_that_blocks(door: Door) -> None:
    def items() -> Iterator[bytes]:
        yield from numbers(3)
        door.wait_here()

    producer = IterableProducer(items(), slice_size=3, threaded=True)
    pipeline = pipeline_of(producer)
    pipeline.processor(lambda message: None)
    async with pipeline.start() as running:
        await when(lambda: running.statistics().settled == {"ok": 3})
        running.stop()
        with anyio.fail_after(5):
            assert (await running.wait()).error is None


async def test_what_came_after_a_late_message_is_not_to_blame() -> None:
    seen = []
    pipeline = pipeline_of(MemoryStream(numbers(6), slices=[6]))

    @pipeline.processor(timeout=5)
    async def handle(message: Message[dict]) -> None:
        seen.append(n_of(message))
        with anyio.CancelScope(shield=n_of(message) == 2):
            await anyio.sleep(20 if n_of(message) == 2 else 0.1)

    assert (await pipeline.run()).settled == {"ok": 6}
    assert seen == [0, 1, 2, 3, 3, 4, 5]  # the cancellation meant for 2 met 3


in_threads = pytest.mark.usefixtures("threads")


@in_threads
async def test_no_more_threads_than_allowed_are_at_work() -> None:
    busy, most, lock = 0, 0, threading.Lock()
    pipeline = pipeline_of(200, max_threads=3)

    def work() -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        threading.Event().wait(0.001)
        with lock:
            busy -= 1

    @pipeline.processor(concurrency=5, max_demand=1)
    def handle(message: Message[dict]) -> None:
        work()

    @pipeline.batcher(size=2, concurrency=5)
    def load(batch: Batch[dict]) -> None:
        work()

    assert (await pipeline.run()).settled == {"ok": 200}
    assert most == 3
