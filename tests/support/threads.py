"""Virtual time that waits for worker threads: it jumps only when no thread has work left.

A thread that waits for an event of `threading` may wait for what happens after a jump: it gets a
moment. One that runs, has not begun, or whose result is on its way to the loop, is waited for.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio.to_thread
import pytest
import trio.testing

from flowstream.pipeline.handlers.frames import frames_of_threads
from flowstream.testing import clock, virtual_time

MOMENT = 0.01
"""Seconds without an event after which threads that wait are taken to hang."""
PATIENCE = 2.0
"""Seconds for threads that run: a bound for those that wait in another way, such as `sleep`."""


class WatchedThreads:
    """The calls of `anyio.to_thread.run_sync`, and the threads that are within one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._calls = 0
        self._within: set[int] = set()
        self._own = {thread.ident for thread in threading.enumerate()}
        self._run_sync: Any = anyio.to_thread.run_sync
        monkeypatch.setattr(anyio.to_thread, "run_sync", self._counted)
        monkeypatch.setattr(clock, "JumpingSelector", partial(PatientSelector, self))

    def virtual_time(self, backend: Any) -> tuple[str, dict[str, Any]]:
        """An anyio backend whose clock waits for these threads, as its fixture returns it."""
        return ("trio", {"clock": patient_clock(self)}) if backend == "trio" else virtual_time()

    async def _counted(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        def within() -> Any:
            self._within.add(threading.get_ident())
            try:
                return function(*args)
            finally:
                self._within.discard(threading.get_ident())

        self._calls += 1
        try:
            return await self._run_sync(within, **options)
        finally:
            self._calls -= 1

    def patience(self) -> float:
        """Seconds to wait for an event before the clock may jump."""
        within = self._within.copy()
        frames = frames_of_threads()
        waiting = [each for each in within if (frame := frames.get(each)) and _waits(frame)]
        if len(waiting) < max(self._calls, len(within)):
            return PATIENCE
        others = (each for each in threading.enumerate() if each.ident not in self._own)
        return MOMENT if waiting or any(map(_is_of_a_test, others)) else 0.0


def _waits(frame: Any) -> bool:
    """Whether a thread waits in `threading`, or in what blockbuster puts around a lock there."""
    callers = (frame, frame.f_back)
    return any(each and each.f_code.co_filename == threading.__file__ for each in callers)


def _is_of_a_test(thread: threading.Thread) -> bool:
    """Whether a test began this thread itself: idle threads of the backends have nothing to do."""
    return not thread.name.startswith(("AnyIO", "Trio"))


class PatientSelector(clock.JumpingSelector):
    def __init__(self, threads: WatchedThreads, moment: float) -> None:
        super().__init__(moment)
        self._threads = threads

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            begun = time.monotonic()
            while time.monotonic() - begun < self._threads.patience():
                if events := selectors.DefaultSelector.select(self, MOMENT / 5):
                    return events
        return super().select(timeout)


def patient_clock(threads: WatchedThreads) -> trio.testing.MockClock:
    """A clock whose jumps wait, too. Its class is final, so one object is changed."""
    mock_clock = trio.testing.MockClock(autojump_threshold=0)
    jump = mock_clock._autojump
    idle_since = looked = 0.0

    def patient() -> None:
        """Trio calls it, again and again, while all tasks wait and no event comes."""
        nonlocal idle_since, looked
        now = time.monotonic()
        if now - looked > MOMENT / 2:  # something has happened since the last look
            idle_since = now
        if now - idle_since < threads.patience():
            time.sleep(MOMENT / 20)
            looked = time.monotonic()
        else:
            looked = 0.0
            jump()

    setattr(mock_clock, "_autojump", patient)  # noqa: B010 - what mypy refuses as an assignment
    return mock_clock
