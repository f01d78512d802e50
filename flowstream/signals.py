"""How tasks wait for each other: the one `Signal` of every room."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio


class Signal:
    """Wakes whoever waits for a condition; costs next to nothing while nobody does.

    Waiters test their condition before and after: `while not ready: await signal.wait()`.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        """Wake all who wait now."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the next notification, at most `timeout` seconds."""
        if self._event is None:
            self._event = anyio.Event()
        event = self._event
        if timeout is None or timeout == math.inf:
            await event.wait()
        else:
            with anyio.move_on_after(timeout):
                await event.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after each notification."""
        while not condition():
            await self.wait()
