"""How tasks wait for each other: the one `Signal` of every room, and the clock of their loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint_if_cancelled


class Signal:
    """Wakes the tasks that wait for a condition; costs almost nothing while none waits.

    Waiters test their condition before and after: `while not ready: await signal.wait()`.

    A slice is waited for several times on its way. On asyncio a bare future is what `anyio.Event`
    waits for inside, at half of its cost; the scopes of anyio cancel both.
    """

    __slots__ = ("_event", "_futures")

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self._futures: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Wake all who wait now."""
        if self._futures:
            futures, self._futures = self._futures, []
            for future in futures:
                if not future.done():
                    future.set_result(None)
        if self._event is not None:
            event, self._event = self._event, None
            event.set()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the next notification, at most `timeout` seconds."""
        if timeout is not None and timeout != math.inf:
            with anyio.move_on_after(timeout):
                await self.wait()
            return
        loop = asyncio._get_running_loop()  # None on trio
        if loop is None:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
            return
        future = loop.create_future()
        self._futures.append(future)
        try:
            await future
        except BaseException:
            if future in self._futures:
                self._futures.remove(future)
            raise

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is checked after each notification.

        On asyncio, anyio does not cancel a task whose future is done. If a task that never pauses
        for long notifies in each turn of the loop, that is so whenever anyio looks.
        """
        if condition():
            return
        await self.wait()
        while not condition():
            await checkpoint_if_cancelled()
            await self.wait()


def cancel_requests() -> Callable[[], int]:
    """How often the current task was asked to end and has not: a count that costs nothing to read.

    anyio's own look walks through all scopes around the task. On trio, whose look is cheap, the
    count is always 1: look there.
    """
    task = None if asyncio._get_running_loop() is None else asyncio.current_task()
    return (lambda: 1) if task is None else task.cancelling


def loop_clock() -> Callable[[], float]:
    """The clock of the running event loop, looked up once: anyio looks it up in every call."""
    loop = asyncio._get_running_loop()  # None on trio
    return anyio.current_time if loop is None else loop.time
