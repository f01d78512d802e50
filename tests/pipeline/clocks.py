"""Virtual time for asyncio: when nothing happens for a moment, the clock jumps ahead."""

from __future__ import annotations

import asyncio
import selectors

MOMENT = 0.01
"""Real seconds without any event before the clock jumps; worker threads get that long."""


class JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(MOMENT)
        if not events:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time` stands still while something happens and jumps when nothing does."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
