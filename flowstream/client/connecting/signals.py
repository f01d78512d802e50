"""A change that any number of tasks can wait for."""

from __future__ import annotations

import anyio


class Signal:
    """`notify()` wakes everybody who is in `wait()` now; it costs next to nothing when nobody is.

    Waiters test their condition before and after: `while not ready: await signal.wait()`.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
