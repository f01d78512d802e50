"""When offsets are stored: by count and by interval, and only when they advanced. Pure."""

from __future__ import annotations

MOST_PER_SECOND = 100_000
"""Up to this many messages a second, commits are spaced by count. Faster runs space them by time
(0.1 s by default): each commit leaves a record in the stream that later readers have to pass."""


class CommitSchedule:
    """Counts settled messages; `due` is True when it is time to store offsets."""

    __slots__ = ("_failed", "_last", "_settled", "every", "interval")

    def __init__(self, every: int, interval: float, now: float) -> None:
        self.every: int = every
        self.interval: float = interval
        self._settled = 0
        self._failed = False
        self._last = now

    def settled(self, messages: int) -> bool:
        """Count settled messages; True when the count alone makes a commit due."""
        self._settled += messages
        return self._settled >= self.every

    def due(self, now: float) -> bool:
        return self._settled >= self.every or (self.waiting and now >= self.deadline)

    @property
    def deadline(self) -> float:
        """When the messages settled since the last commit must be committed."""
        return self._last + self.interval

    @property
    def pause(self) -> float:
        """The seconds after a commit in which there is no other one."""
        return min(self.every / MOST_PER_SECOND, self.interval)

    def committed(self, now: float) -> None:
        """All offsets that had advanced were stored."""
        self._settled = 0
        self._failed = False
        self._last = now

    def failed(self) -> None:
        """An offset could not be stored: it is due again at the next interval."""
        self._failed = True

    @property
    def waiting(self) -> bool:
        """Whether something is left to store."""
        return self._failed or self._settled > 0
