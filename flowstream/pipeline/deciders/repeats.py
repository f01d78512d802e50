"""When to log what happens repeatedly: the first time, and then once a minute. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

INTERVAL = 60.0
"""Seconds between two records of the same kind."""
KINDS = 1_000
"""How many kinds are remembered: the latest."""


class Repeats:
    """Counts, by kind, what was not logged."""

    __slots__ = ("_interval", "_kinds")

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._kinds: OrderedDict[Hashable, tuple[float | None, int]] = OrderedDict()

    def due(self, kind: Hashable, now: float) -> int | None:
        """None if this one must not be logged; else how many were not logged since the last record.

        It is 0 for the first one.
        """
        logged_at, left_out = self._kinds.pop(kind, (None, 0))
        if logged_at is not None and now - logged_at < self._interval:
            self._kinds[kind] = logged_at, left_out + 1
            return None
        self._kinds[kind] = now, 0
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        return left_out

    def forget(self, kind: Hashable) -> None:
        """It is over: the next one counts as the first."""
        self._kinds.pop(kind, None)


def more(count: int) -> str:
    """` (4 more since the last record of this)`: how often it happened and was not logged."""
    return f" ({count:,} more since the last record of this)" if count else ""
