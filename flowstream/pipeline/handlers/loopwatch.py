"""Reports what blocks the event loop, while it does: a handler, a partition_by, an observer.

A blocked loop cannot report itself. So a thread posts a callback to it a few times a second, in
real time, on asyncio and on trio. Each event loop has one such thread, for all its pipelines.
"""

from __future__ import annotations

import _thread
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Protocol

from anyio.lowlevel import current_token

from flowstream.pipeline.deciders.repeats import Repeats, more
from flowstream.pipeline.handlers.frames import frames_of_threads

BLOCKED_AFTER = 1.0
"""Seconds without an answer after which the event loop counts as blocked."""
ASK_EVERY = 0.2
OUTERMOST, INNERMOST = 10, 20
"""Frames of a stack that are shown."""
_LOOPS = {"asyncio", "trio", "uvloop"}
"""Packages of event loops. A loop whose stack ends in one of them waits for work,"""
_CALLBACK = "_run"
"""except in this function of asyncio, which calls a callback."""
_OWN = "flowstream."
_SELECTORS = {"selectors", "flowstream.testing.clock"}


class Watched(Protocol):
    """A run on the loop."""

    @property
    def name(self) -> str: ...

    @property
    def after(self) -> float:
        """Seconds after which a blocked loop is reported."""

    def at_work(self, frames: set[FrameType]) -> tuple[str, str] | None:
        """The stage or callback that one of these frames belongs to, and a description of it."""

    def blocked(self, text: str, stage: str, where: str) -> None:
        """The loop is blocked. Called in the thread of the watch."""

    def was_blocked(self, seconds: float, stage: str, where: str, *, reported: bool) -> None:
        """The loop runs again. Called on the event loop. `reported`: after `blocked`."""

    def was_late(self, text: str) -> None:
        """The loop did not run, and nothing that blocked it was found. Called on the event loop."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """What blocks the loop at the moment."""

    run: Watched
    stage: str
    where: str
    reported: bool


class LoopWatch:
    """The thread that watches the event loop of the thread that makes it."""

    def __init__(self) -> None:
        self.runs: list[Watched] = []
        self._loop_thread = threading.get_ident()
        self.loop: Final = current_token()
        self._ask = _poster()
        self._asked = time.monotonic()
        self._answered = True
        self._culprit: Culprit | None = None
        self._repeats = Repeats()
        self._late = Repeats()
        self._running = _thread.allocate_lock()

    def start(self) -> None:
        """Start a bare thread: starting one of `threading` would wait on the event loop."""
        self._running.acquire(blocking=False)
        _thread.start_new_thread(self._watch, ())

    def stop(self) -> None:
        self._running.release()

    @property
    def _after(self) -> float:
        return min((run.after for run in self.runs), default=BLOCKED_AFTER)

    def _watch(self) -> None:
        while not self._running.acquire(timeout=min(ASK_EVERY, self._after / 4)):
            if self._answered:
                self._asked, self._answered = time.monotonic(), False
                try:
                    self._ask(self._answer)
                except RuntimeError:  # the loop has ended
                    return
            elif self._culprit is None and time.monotonic() - self._asked >= self._after:
                self._look()

    def _answer(self) -> None:
        """Called on the event loop, which therefore runs."""
        culprit, self._culprit = self._culprit, None
        seconds = time.monotonic() - self._asked
        self._answered = True
        if culprit is not None:
            culprit.run.was_blocked(
                seconds, culprit.stage, culprit.where, reported=culprit.reported
            )
        elif seconds >= self._after and self.runs:
            left_out = self._late.due("late", time.monotonic())
            if left_out is not None:
                self.runs[0].was_late(f"for {seconds:.1f} s{more(left_out)}")

    def _look(self) -> None:
        runs = self.runs  # the last run may end while this thread looks
        frame = frames_of_threads().get(self._loop_thread)
        if frame is None or _waits(frame) or not runs:
            return  # the machine is busy: the loop has no work, or the process got no CPU time
        where = stack(frame)
        run, (stage, words) = _whose(runs, set(_outwards(frame)))
        left_out = self._repeats.due((run.name, stage), time.monotonic())
        self._culprit = Culprit(run, stage, where, reported=left_out is not None)
        if left_out is not None:
            seconds = time.monotonic() - self._asked
            by = f" by {words}" if words else ""
            run.blocked(f"for {seconds:.1f} s{by}{more(left_out)}", stage, where)


_watches: dict[int, LoopWatch] = {}


@contextmanager
def watching(run: Watched) -> Iterator[None]:
    """Watch the running event loop for `run`."""
    thread = threading.get_ident()
    watch = _watches.get(thread)
    if watch is None or watch.loop != current_token():  # one of a loop that was torn down
        watch = _watches[thread] = LoopWatch()
        watch.start()
    watch.runs = [*watch.runs, run]
    try:
        yield
    finally:
        watch.runs = [each for each in watch.runs if each is not run]
        if not watch.runs:
            watch.stop()
            if _watches.get(thread) is watch:
                del _watches[thread]


def _whose(runs: list[Watched], frames: set[FrameType]) -> tuple[Watched, tuple[str, str]]:
    for run in runs:
        found = run.at_work(frames)
        if found is not None:
            return run, found
    return runs[0], ("", "")


def _poster() -> Callable[[Callable[[], Any]], Any]:
    """A function that makes the running event loop call something soon, from another thread."""
    loop: Any = current_token().native_token
    post: Callable[[Callable[[], Any]], Any] = (
        loop.run_sync_soon if hasattr(loop, "run_sync_soon") else loop.call_soon_threadsafe
    )
    return post


def stack(frame: FrameType) -> str:
    """The stack from what flowstream called on; the whole stack if that is flowstream itself."""
    frames = list(_outwards(frame))
    own = (number for number, each in enumerate(frames) if _module(each).startswith(_OWN))
    frames = frames[: next(own, 0) or None][::-1]
    left_out = len(frames) - OUTERMOST - INNERMOST
    lines = traceback.format_list(
        traceback.StackSummary.extract((each, each.f_lineno) for each in frames)
    )
    if left_out > 0:
        lines[OUTERMOST:-INNERMOST] = [f"  ... {left_out} frames ...\n"]
    return "".join(lines)


def _waits(frame: FrameType | None) -> bool:
    """Whether the loop waits for events, in its own code, in a selector or in C."""
    while frame is not None and _module(frame) in _SELECTORS:
        frame = frame.f_back
    if frame is None:
        return True
    return _module(frame).partition(".")[0] in _LOOPS and frame.f_code.co_name != _CALLBACK


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
