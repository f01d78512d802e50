"""How many of the waiting messages a worker takes at once: fair and bounded. Pure."""

from __future__ import annotations

TARGET = 0.005
"""Seconds that a slice should take: short enough to share work, long enough to be cheap."""
FIRST_LIMIT = 16
SLOW = 10 * TARGET
"""Seconds that a slice with fast handlers does not take."""
CAREFUL = 1_000
"""How many slices must be fast after one that was slow."""


class SliceSizer:
    """The size of a slice: a fair share of what waits, and at most TARGET seconds of work.

    So workers with slow handlers take single messages, and those with fast ones take slices of up
    to `max_demand`, whose cost per message is very small.

    One call for all messages of a slice costs less per message the larger the slice is. A handler
    that is called once (`together`) gets the fair share whatever its time. Otherwise the handlers
    of a slice may take as long as the call before them, so that call is half of the time at most.
    """

    __slots__ = ("_careful", "_limit", "_together", "max_demand")

    def __init__(self, max_demand: int, *, together: bool = False) -> None:
        self.max_demand: int = max_demand
        self._together = together
        self._limit = float(max_demand if together else min(FIRST_LIMIT, max_demand))
        self._careful = 1

    def learn(self, messages: int, seconds: float, before: float = 0.0, put_back: int = 0) -> None:
        """A slice of `messages` took `seconds` in its handlers, after one call of `before`.

        More were `put_back`, because they must wait for one that failed: if many fail, all that is
        taken behind them is taken in vain.
        """
        self._careful = CAREFUL if before + seconds > SLOW else max(self._careful - 1, 0)
        if self._together:
            return
        fits = messages * max(TARGET, before) / seconds if seconds > 0 else self.max_demand
        if put_back > messages:
            fits = min(fits, 2 * messages)
        wanted = (self._limit + fits) / 2 if fits < self._limit else min(fits, self._limit * 4)
        self._limit = min(max(wanted, 1.0), self.max_demand)

    @property
    def whole(self) -> int:
        """How many messages are better handled by one worker than shared with idle ones.

        They fit into TARGET seconds of work. 0 if that is not known, or a slice was slow lately.
        """
        return 0 if self._careful else int(self._limit)

    def size(self, waiting: int, idle: int) -> int:
        """How many of the `waiting` messages one of `idle` workers takes."""
        fair = -(-waiting // max(idle, 1))
        return max(min(fair, int(self._limit)), 1) if waiting else 0
