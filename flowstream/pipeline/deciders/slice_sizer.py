"""How many of the waiting messages a worker takes at once: fair and bounded. Pure."""

from __future__ import annotations

TARGET = 0.005
"""Seconds that a slice should take: short enough to share work, long enough to be cheap."""
FIRST_LIMIT = 16


class SliceSizer:
    """The size of a slice: a fair share of what waits, and at most TARGET seconds of work.

    So workers with slow handlers take single messages, and those with fast ones take slices of up
    to `max_demand`, whose cost per message is very small.
    """

    __slots__ = ("_limit", "max_demand")

    def __init__(self, max_demand: int) -> None:
        self.max_demand: int = max_demand
        self._limit = float(min(FIRST_LIMIT, max_demand))

    def learn(self, messages: int, seconds: float) -> None:
        """A slice of `messages` took `seconds` in its handler."""
        fits = messages * TARGET / seconds if seconds > 0 else self.max_demand
        wanted = (self._limit + fits) / 2 if fits < self._limit else min(fits, self._limit * 4)
        self._limit = min(max(wanted, 1.0), self.max_demand)

    def size(self, waiting: int, idle: int) -> int:
        """How many of the `waiting` messages one of `idle` workers takes."""
        fair = -(-waiting // max(idle, 1))
        return max(min(fair, int(self._limit)), 1) if waiting else 0
