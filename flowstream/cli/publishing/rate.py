"""A steady rate: pure, the clock is an argument."""

from __future__ import annotations


class Pace:
    """How many messages are due at `rate` per second; one more than `burst` seconds' worth at most.

    A sender that was held up catches up by at most `burst` seconds, so a long pause is not
    followed by a flood.
    """

    __slots__ = ("_burst", "_credit", "_last", "_rate")

    def __init__(self, rate: float, now: float, burst: float = 1.0) -> None:
        self._rate = rate
        self._burst = burst
        self._last = now
        self._credit = 0.0

    def due(self, now: float) -> int:
        """Whole messages that may be sent now."""
        earned = (now - self._last) * self._rate
        self._credit = min(self._credit + earned, self._burst * self._rate + 1)
        self._last = now
        return int(self._credit)

    def sent(self, count: int) -> None:
        """`count` messages have gone."""
        self._credit -= count

    def wait(self) -> float:
        """Seconds until the next message is due, at least a twentieth."""
        return max(0.05, (1.0 - self._credit) / self._rate)
