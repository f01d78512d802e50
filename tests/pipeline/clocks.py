"""Virtual time for asyncio: when nothing happens for a moment, the clock jumps ahead."""

from __future__ import annotations

import asyncio
import selectors


class JumpingSelector(selectors.DefaultSelector):
    def __init__(self, moment: float) -> None:
        super().__init__()
        self.moment = moment
        self.now = 0.0

    def select(self, timeout=None):
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(self.moment)
        if not events:
            self.now += max(timeout, 1e-9)  # adding less might add nothing
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time` stands still while something happens and jumps when nothing does.

    Nothing happens when no event came for `moment` real seconds: what worker threads need.
    """

    def __init__(self, moment: float = 0) -> None:
        self._jumping = JumpingSelector(moment)
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
