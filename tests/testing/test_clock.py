"""Virtual time jumps when nothing else can happen, and passes really while threads work."""

from __future__ import annotations

import threading
import time
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
    limiter: Any = None

    async def main() -> None:
        nonlocal limiter
        limiter = anyio.CapacityLimiter(1)
        with threads_take_time(limiter), anyio.fail_after(3600):
            await anyio.to_thread.run_sync(time.sleep, 0.01, limiter=limiter)

    run_virtual(main, backend=backend)


@BACKENDS
def test_a_timeout_comes_while_a_thread_hangs(backend):
    """Time goes on, as it really does: what hangs in a thread is ended by its timeout."""
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


@BACKENDS
def test_without_virtual_time_nothing_changes(backend):
    async def main() -> None:
        with threads_take_time():
            await anyio.to_thread.run_sync(time.sleep, 0)

    anyio.run(main, backend=backend)


@BACKENDS
def test_timers_ring_far_from_the_beginning(backend):
    async def main() -> None:
        for _ in range(3):
            await anyio.sleep(1e9)
            await anyio.sleep(1e-6)
            await anyio.sleep(0.3)

    run_virtual(main, backend=backend)
