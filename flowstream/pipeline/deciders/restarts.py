"""How often a crashed stage may be restarted: bounded intensity. Pure: `now` is given."""

from __future__ import annotations

from collections import deque


class Restarts:
    """At most `limit` restarts within any `window` seconds."""

    __slots__ = ("_crashes", "limit", "total", "window")

    def __init__(self, limit: int, window: float) -> None:
        self.limit: int = limit
        self.window: float = window
        self.total: int = 0
        self._crashes: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count a crash at `now`; True when the stage may be restarted."""
        self.total += 1
        self._crashes.append(now)
        while self._crashes[0] <= now - self.window:
            self._crashes.popleft()
        return len(self._crashes) <= self.limit
