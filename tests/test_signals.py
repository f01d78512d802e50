"""A signal wakes all who wait, and nobody who comes later."""

from __future__ import annotations

import asyncio
import contextlib
import math

import anyio
import anyio.lowlevel
import pytest

from flowstream.signals import Signal, cancel_requests
from flowstream.testing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_time(request.param)


async def test_all_who_wait_are_woken_and_nobody_later() -> None:
    signal, woken = Signal(), []
    signal.notify()  # for nobody

    async def wait(name: str, timeout: float | None) -> None:
        begun = anyio.current_time()
        await signal.wait(timeout)
        woken.append((name, round(anyio.current_time() - begun)))

    async with anyio.create_task_group() as group:
        for name, timeout in (("no limit", None), ("infinite", math.inf), ("long", 50.0)):
            group.start_soon(wait, name, timeout)
        await anyio.sleep(10)
        signal.notify()
        await anyio.sleep(1)
        assert sorted(woken) == [("infinite", 10), ("long", 10), ("no limit", 10)]
        group.start_soon(wait, "later", 5.0)
    assert woken[-1] == ("later", 5), "its time ran out"


async def test_until_looks_after_each_notification() -> None:
    signal, value, looks = Signal(), 0, []

    def reached() -> bool:
        looks.append(value)
        return value == 3

    async with anyio.create_task_group() as group:
        group.start_soon(signal.until, reached)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            value += 1
            signal.notify()
    assert looks == [0, 1, 2, 3]
    await Signal().until(lambda: True)


async def test_nothing_is_left_of_those_who_stopped_waiting() -> None:
    """A wait whose time ran out, and one that was cancelled, again and again."""
    signal = Signal()
    for _ in range(5):
        await signal.wait(1)
        with anyio.move_on_after(1):
            await signal.wait()
    assert signal._futures == []
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(signal.wait)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert signal._futures == []
    signal.notify()


async def test_a_wait_is_cancelled_although_each_turn_of_the_loop_notifies_in_vain() -> None:
    """The time of a drain ran out, and it went on: a handler blocked the loop for each slice."""
    signal, turns = Signal(), 0

    async def notify() -> None:
        nonlocal turns
        while turns < 100:
            signal.notify()
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                await signal.until(lambda: turns == 100)

        group.start_soon(wait)
        group.start_soon(notify)
        await anyio.lowlevel.checkpoint()
        scope.cancel()
    assert scope.cancelled_caught


async def test_cancel_requests_are_counted_until_the_scope_is_left() -> None:
    """On trio there is nothing to count, so whoever asks always looks."""
    before = int(asyncio._get_running_loop() is None)
    requests = cancel_requests()
    assert requests() == before
    with anyio.move_on_after(1):
        with contextlib.suppress(BaseException):  # as a handler that swallows everything
            await anyio.sleep(2)
        assert requests() == 1
        await anyio.lowlevel.checkpoint_if_cancelled()
        raise AssertionError("the scope is cancelled")
    assert requests() == before
