"""The frames of all threads are found without a collection in between, which can deadlock."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from flowstream.pipeline.handlers.frames import frames_of_threads

THREADS = 8


@contextmanager
def waiting_threads() -> Iterator[set[int | None]]:
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield {thread.ident for thread in threads}
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_the_frames_of_all_threads_are_found() -> None:
    with waiting_threads() as idents:
        frames = frames_of_threads()
    assert idents | {threading.get_ident()} <= frames.keys()
    assert frames[threading.get_ident()].f_code is frames_of_threads.__code__


def test_the_collector_does_not_run_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where each object that is made is due to be collected."""
    current_frames = sys._current_frames
    looking = False
    collected: list[str] = []

    def look() -> dict[int, FrameType]:
        nonlocal looking
        looking = True
        found = current_frames()
        looking = False
        return found

    def note(phase: str, info: dict[str, int]) -> None:
        if looking:
            collected.append(phase)

    monkeypatch.setattr(sys, "_current_frames", look)
    before = gc.get_threshold()
    gc.callbacks.append(note)
    try:
        with waiting_threads():
            gc.set_threshold(1)
            for _ in range(20):
                frames_of_threads()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    assert collected == []
    assert gc.isenabled()


def test_a_collector_that_was_disabled_stays_so() -> None:
    gc.disable()
    try:
        frames_of_threads()
        assert not gc.isenabled()
    finally:
        gc.enable()
