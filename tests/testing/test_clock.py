"""Virtual time jumps while every task waits, and is real time while a thread runs."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream.testing import run_virtual, threads_take_time

BACKENDS: Any = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_an_hour_passes_at_once_and_in_order(backend):
    passed = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        passed.append((seconds, anyio.current_time()))

    async def main() -> float:
        begin = anyio.current_time()
        async with anyio.create_task_group() as group:
            for seconds in (3600, 1, 60):
                group.start_soon(sleeper, seconds)
        return begin

    began = time.monotonic()
    begin = run_virtual(main, backend=backend)
    assert time.monotonic() - began < 60
    assert [seconds for seconds, _ in passed] == [1, 60, 3600]
    assert [now - begin for _, now in passed] == pytest.approx([1, 60, 3600])


@BACKENDS
def test_a_thread_is_not_overtaken_by_a_timeout(backend):
    release = threading.Event()

    async def main() -> None:
        with anyio.fail_after(3600):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, release.wait)
                await anyio.to_thread.run_sync(time.sleep, 0.01)
                release.set()
        begin = anyio.current_time()
        await anyio.sleep(1000)
        assert anyio.current_time() - begin == pytest.approx(1000, abs=1)

    run_virtual(main, backend=backend)


@BACKENDS
def test_threads_of_other_limiters_count_when_they_are_named(backend):
    async def main() -> float:
        limiter = anyio.CapacityLimiter(1)
        begin = anyio.current_time()
        with threads_take_time(limiter), anyio.fail_after(3600):
            await anyio.to_thread.run_sync(time.sleep, 0.01, limiter=limiter)
        return anyio.current_time() - begin

    assert run_virtual(main, backend=backend) < 60


@BACKENDS
def test_a_timeout_comes_while_a_thread_hangs(backend):
    """Real time passes, so a timeout ends the wait for a thread that hangs."""
    release = threading.Event()

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await anyio.to_thread.run_sync(release.wait, abandon_on_cancel=True)
        release.set()
        assert scope.cancelled_caught

    run_virtual(main, backend=backend)


@pytest.mark.anyio
async def test_it_is_a_backend_of_anyio_s_plugin():
    begin = anyio.current_time()
    with threads_take_time(), threads_take_time():
        await anyio.to_thread.run_sync(time.sleep, 0)
        await anyio.sleep(3600)
    assert anyio.current_time() - begin == pytest.approx(3600, abs=1)


@pytest.mark.medium
@BACKENDS
def test_without_virtual_time_nothing_changes(backend):
    """Time is real time, before, inside and after."""

    async def main() -> list[tuple[float, float]]:
        passed = []
        for context in (nullcontext(), threads_take_time(), nullcontext()):
            begin, began = anyio.current_time(), time.monotonic()
            with context:
                await anyio.to_thread.run_sync(time.sleep, 0.01)
                await anyio.sleep(0.02)
            passed.append((anyio.current_time() - begin, time.monotonic() - began))
        return passed

    for virtual, real in anyio.run(main, backend=backend):
        assert virtual >= 0.03
        assert virtual == pytest.approx(real, abs=0.01)


@pytest.mark.medium
@BACKENDS
def test_timers_are_exact_far_from_the_beginning(backend):
    """Where the next float after `now` is further away than the resolution of asyncio's timers."""
    waits = [1e9, 1e-6, 0.3] * 3

    async def main() -> list[float]:
        passed = []
        for wait in waits:
            begin = anyio.current_time()
            await anyio.sleep(wait)
            passed.append(anyio.current_time() - begin)
        return passed

    assert run_virtual(main, backend=backend) == pytest.approx(waits, abs=1e-5)
