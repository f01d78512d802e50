"""What blocks the event loop is named while it does, after a second; in real time."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import anyio
import pytest

from flowstream.pipeline import Batch, Message, Pipeline
from flowstream.pipeline.deciders.repeats import Repeats
from flowstream.pipeline.handlers.frames import frames_of_threads
from flowstream.pipeline.handlers.loopwatch import _waits, watching
from flowstream.telemetry import LoopBlocked
from tests.support.pipelines import MemoryStream, Recorder, numbers, pipeline_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.medium,  # it waits for a loop that is blocked
    pytest.mark.usefixtures("short_collections"),
]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_blocks() -> None:
    """Here something does, on purpose."""


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowstream")


def blocked(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if "has been blocked" in each.getMessage()]


def block(caplog: pytest.LogCaptureFixture, seconds: float, *, computing: bool = False) -> None:
    """Block until it is told, and `seconds` at least."""
    began = time.monotonic()
    while time.monotonic() - began < (seconds if blocked(caplog) else 20):
        if computing:
            sum(range(1_000))
        else:
            time.sleep(0.05)


async def test_a_deep_stack_is_shown_from_the_handler_on(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(1)

    def deeper(depth: int) -> None:
        if depth:
            deeper(depth - 1)
        else:
            block(caplog, 0)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        deeper(100)

    await pipeline.run()
    (record,) = blocked(caplog)
    text = record.getMessage()
    assert "in handle\n    deeper(100)" in text
    assert "in deeper\n    block(caplog, 0)" in text
    assert " frames ...\n" in text
    assert len(text) < 5_000


@pytest.mark.medium
@pytest.mark.parametrize("computing", [False, True], ids=["waits", "computes"])
async def test_a_handler_that_blocks_is_named_while_it_does(
    computing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, pipeline = Recorder(), pipeline_of(MemoryStream(numbers(3)))
    ended = 0.0

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        nonlocal ended
        if message.offset == 1:
            began = time.time()
            block(caplog, 1.5, computing=computing)
            ended = time.time()
            told = blocked(caplog)[0].created - began
            assert 0.9 < told < 10  # 1.4 s, but for a machine that is busy

    assert (await pipeline.run(telemetry=recorder.telemetry)).settled == {"ok": 3}
    (record,) = blocked(caplog)
    assert record.created < ended
    text = record.getMessage()
    assert "pipeline 'test': the event loop has been blocked for 1." in text
    assert "by the handler of 'processor': nothing else runs meanwhile" in text
    where = text.partition("It is at\n")[2]
    assert where.splitlines()[0].endswith("in handle")  # and not the frames that called it
    assert "in handle\n    block(caplog, 1.5, computing=computing)" in where
    assert any("the event loop runs again after" in text for text in caplog.messages)
    assert record.levelno == logging.WARNING
    assert (vars(record)["pipeline"], vars(record)["stage"]) == ("test", "processor")
    (event,) = recorder.of(LoopBlocked)
    assert (event.pipeline, event.stage) == ("test", "processor")
    assert event.seconds >= 1


def bare_threads() -> int:
    """Threads that `threading` does not know, such as the one that watches the loop."""
    return len(frames_of_threads()) - threading.active_count()


async def test_a_batch_handler_among_several_pipelines(caplog: pytest.LogCaptureFixture) -> None:
    """One thread watches the loop, and one record names whose handler it is."""
    idle, busy = (Pipeline(name, MemoryStream(numbers(2))) for name in ("idle", "busy"))
    threads, before = 0, bare_threads()  # the watch of a run that has ended takes a moment to end

    @idle.processor
    async def rest(message: Message[dict]) -> None:
        await anyio.sleep(0.1)

    @busy.processor
    async def handle(message: Message[dict]) -> None: ...

    @busy.batcher("load", size=2)
    async def load(batch: Batch[dict]) -> None:
        nonlocal threads
        threads = bare_threads()
        block(caplog, 0)

    async with anyio.create_task_group() as group:
        group.start_soon(idle.run)
        group.start_soon(busy.run)
    (record,) = blocked(caplog)
    assert "pipeline 'busy'" in record.getMessage()
    assert "by the handler of 'load'" in record.getMessage()
    assert threads <= before + 1


@pytest.mark.slow
async def test_what_blocks_again_and_again_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    pipeline = pipeline_of(3, stuck_after=0.1)  # which is the shorter time then

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        time.sleep(0.4)
        await anyio.sleep(0.3)

    await pipeline.run(telemetry=recorder.telemetry)
    assert len(blocked(caplog)) == 1
    assert len(recorder.of(LoopBlocked)) == 3


@pytest.mark.slow
async def test_threads_and_waiting_block_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(2)

    @pipeline.processor
    def handle(message: Message[dict]) -> None:
        time.sleep(0.7)

    @pipeline.batcher(size=1)
    async def load(batch: Batch[dict]) -> None:
        await anyio.sleep(0.7)

    await pipeline.run()
    assert blocked(caplog) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_loop_that_waits_is_not_blocked() -> None:
    seen: dict[str, bool] = {}
    loop_thread = threading.get_ident()

    def look(name: str) -> None:
        time.sleep(0.15)
        seen[name] = _waits(frames_of_threads()[loop_thread])

    async def while_(name: str, doing: Any) -> None:
        thread = threading.Thread(target=look, args=(name,))
        thread.start()
        await doing()
        await anyio.to_thread.run_sync(thread.join)

    async def child() -> None:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(.5)"], capture_output=True)

    async def callback() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        await anyio.sleep(0)

    async def sleep() -> None:
        time.sleep(0.3)

    await while_("idle", lambda: anyio.sleep(0.3))
    await while_("in a subprocess", child)
    await while_("in a callback", callback)
    await while_("in a handler", sleep)
    assert seen == {
        "idle": True,
        "in a subprocess": False,
        "in a callback": False,
        "in a handler": False,
    }


def test_repeats_are_counted() -> None:
    repeats = Repeats(60)
    assert [repeats.due("a", now) for now in (0, 1, 30, 59.9, 60, 61, 130)] == [
        *(0, None, None, None), 3, None, 1,
    ]  # fmt: skip
    assert repeats.due("b", 10) == 0
    repeats.forget("a")
    assert repeats.due("a", 131) == 0
    for kind in range(5_000):
        repeats.due(kind, 0)
    assert len(repeats._kinds) <= 1_000


def test_a_loop_that_was_torn_down_does_not_leave_the_next_one_unwatched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def torn_down() -> None:
        nobody: Any = Nobody()
        left.append(watching(nobody))
        left[0].__enter__()

    class Nobody:
        name, after = "nobody", 0.1

    left: list[Any] = []
    pipeline = pipeline_of(1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        block(caplog, 0)

    asyncio.run(torn_down())
    asyncio.run(pipeline.run())
    left[0].__exit__(None, None, None)
    assert len(blocked(caplog)) == 1


async def test_a_drain_ends_in_its_time_although_a_handler_blocks_the_loop() -> None:
    """On asyncio it went on until everything was handled."""
    pipeline = pipeline_of(2_000, drain_timeout=0.3)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        time.sleep(0.01)

    async with pipeline.start() as running:
        await anyio.sleep(0.1)
        running.stop()
        result = await running.wait()
    assert result.reason == "drain timeout"
    assert result.seconds < 10  # all messages take 20
