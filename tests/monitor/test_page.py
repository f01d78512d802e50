"""The live page in a real browser: what it shows, does and survives, and for whom."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor
from flowstream.pipeline import IterableProducer, Message, Pipeline
from flowstream.telemetry import (
    BatchReady,
    Committed,
    ConnectionOpened,
    Dropped,
    Failed,
    PartitionMoved,
    Settled,
    Telemetry,
)
from tests.monitor.figures import BATCHER, LANE, PROCESSOR, RUNNING, Changing

if TYPE_CHECKING:
    from tests.monitor.browser import Browser

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

CHECKS = (Path(__file__).parent / "accessibility.js").read_text()
PATIENCE = 20.0
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("no selenium: it is in the dependency group test")
    from tests.monitor import browser

    if not browser.installed():
        pytest.skip(browser.WHY_NOT)
    with browser.browser() as window:
        yield window


class Page:
    """A run that is made up, its monitor, and the browser that looks at it."""

    def __init__(self, window: Browser, port: int, board: Board) -> None:
        self.window = window
        self.address = f"http://127.0.0.1:{port}/"
        self.board = board
        self.statistics = Changing()

    async def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Something with the browser, in a thread."""
        return await to_thread.run_sync(function, *arguments)

    async def load(self, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        def go() -> None:
            self.window.errors()
            self.window.shape(size, dark=dark, phone=size == PHONE)
            self.window.driver.get(self.address)

        await self.do(go)

    async def shows(self, *texts: str) -> str:
        """Wait until all the texts are to be seen."""
        with anyio.move_on_after(PATIENCE):
            while True:
                seen: str = await self.do(self.window.text)
                if all(text in seen for text in texts):
                    return seen
                await anyio.sleep(0.05)
        missing = [text for text in texts if text not in seen]
        raise AssertionError(f"{missing} not in\n{seen}")

    async def matches(self, selector: str) -> int:
        """How many elements match, now."""
        found = await self.do(
            self.window.run, f"return document.querySelectorAll({selector!r}).length"
        )
        return int(found)


EVENTS = (
    ConnectionOpened("a:1", "consuming"),
    BatchReady("p", "default", 50, "size", 0.25),
    Settled("p", "s", "ok", 100, 0.5),
    Dropped("p", "s", "test order", 7, True),
    Failed("p", "processor", "process", "ValueError", 2, "ValueError: amount must be positive"),
    Committed("p", "s", 500, False),
    PartitionMoved("p", "all", "s-elsewhere", False, None),
)


@asynccontextmanager
async def monitor(board: Board, port: int = 0, *, control: bool = False) -> AsyncIterator[int]:
    async with anyio.create_task_group() as group:
        face = Monitor(Metrics(), board, control=control)
        _, port = await group.start(face.run, "127.0.0.1", port)
        yield port
        group.cancel_scope.cancel()


@pytest.fixture
async def page(window: Browser) -> AsyncIterator[Page]:
    board = Board()
    async with monitor(board) as port:
        page = Page(window, port, board)
        board.watch("p", page.statistics)
        for event in EVENTS:
            Telemetry(board).emit(event)
        yield page


async def test_it_shows_what_the_run_does_and_updates(page: Page) -> None:
    await page.load()
    await page.shows("processor", "548 ok", "2 dead-lettered", "amount must be positive",
                     "test order", "size 1", "s-elsewhere", "elsewhere", "ready")  # fmt: skip
    page.statistics.change(settled={"ok": 9_876_543})
    page.board.sample()
    await page.shows("9.9M ok")
    assert await page.do(page.window.errors) == []


async def test_it_loads_in_less_than_a_second(page: Page) -> None:
    """The best of a few: the machine may be busy with other things."""
    script = """
        const first = performance.getEntriesByName("first-contentful-paint")[0];
        const loaded = performance.getEntriesByType("resource");
        const figures = loaded.find(each => each.name.endsWith("snapshot"));
        return figures && first ? Math.max(first.startTime, figures.responseEnd) : null;
    """
    times = []
    for _ in range(5):
        await page.load()
        await page.shows("548 ok")
        times.append(await page.do(page.window.run, script))
        if times[-1] < 1000:
            break
    assert min(times) < 1000


async def test_a_failing_stage_and_a_lagging_partition_are_shown_as_such(page: Page) -> None:
    lagging = dataclasses.replace(LANE, stream="s-2", lag_seconds=95.0)
    page.statistics.change(lanes=(LANE, lagging))
    await page.load()
    await page.shows("failing", "450 · lagging")
    assert await page.matches(".stage.failing") == 1
    assert await page.matches("tr.alarm") == 1


async def test_stages_are_coloured_by_how_busy_they_are(page: Page) -> None:
    busy = [dataclasses.replace(s, times={"busy": 95.0, "idle": 40.0}) for s in (PROCESSOR,)]
    page.statistics.change(stages=(*busy, BATCHER))
    await anyio.sleep(0.01)
    page.board.sample()
    await page.load()
    await page.shows("processor")
    assert await page.matches(".stage.hot") == 1


async def test_what_is_not_ready_is_told(page: Page) -> None:
    await page.load()
    await page.shows("ready")
    page.statistics.change(phase="draining", uncommitted=60.0)
    await page.shows("not ready", "the run is draining", "waiting for a commit for 60 s")
    page.statistics.change(phase="running", uncommitted=0.0)
    while await page.matches("#status.shown"):
        await anyio.sleep(0.05)


async def test_it_survives_a_restart_of_the_run_by_itself(window: Browser) -> None:
    first = Board()
    async with monitor(first) as port:
        page = Page(window, port, first)
        first.watch("p", page.statistics)
        await page.load()
        await page.shows("548 ok")
    await page.shows("The run does not answer; trying again", "548 ok")
    second = Board()
    async with monitor(second, port):
        again = dataclasses.replace(RUNNING, settled={"ok": 12}, pipeline="p")
        second.watch("p", Changing(again))
        await page.shows("12 ok", "ready")
        assert await page.matches("body.gone") == 0
        assert await page.matches("section.pipeline") == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_it_is_accessible(page: Page, size: tuple[int, int], dark: bool) -> None:
    page.statistics.change(phase="draining")
    await page.load(size, dark=dark)
    await page.shows("548 ok", "the run is draining")
    assert await page.do(page.window.run, CHECKS) == []


async def test_the_accessibility_check_finds_what_is_wrong(page: Page) -> None:
    await page.load()
    await page.shows("548 ok")
    spoil = """
        const button = document.createElement("button");
        const faint = document.createElement("p");
        faint.textContent = "faint";
        faint.style.color = "rgb(200 200 200)";
        document.querySelector("main").append(button, faint);
    """
    await page.do(page.window.run, spoil)
    wrong = await page.do(page.window.run, CHECKS)
    assert len(wrong) == 2, wrong
    assert wrong[0].startswith("without a name")
    assert wrong[1].startswith("contrast 1.")


async def test_controls_pause_resume_and_limit(window: Browser) -> None:
    pipeline, ended = Pipeline("steered", IterableProducer([b"x"])), anyio.Event()

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await ended.wait()

    board = Board()
    async with monitor(board, control=True) as port, pipeline.start() as running:
        board.watch("steered", running.statistics)
        page = Page(window, port, board)
        await page.load()
        await page.shows("Pause")
        click = "document.querySelector(arguments[0]).click()"
        await page.do(window.run, click, "form button")
        await page.shows("Resume", "paused")
        assert running.paused
        await page.do(window.run, click, "form button")
        await page.shows("Pause", "running")
        await page.do(window.run, "document.querySelector('input').value = '250'")
        await page.do(window.run, click, "form button[type=submit]")
        await page.shows("limited to 250/s")
        assert running.rate_limit is not None
        assert running.rate_limit.messages == 250
        assert await page.do(page.window.errors) == []
        assert await page.do(window.run, CHECKS) == []
        ended.set()


async def test_without_permission_there_are_no_controls(page: Page) -> None:
    await page.load()
    await page.shows("548 ok")
    assert await page.matches("button") == 0
