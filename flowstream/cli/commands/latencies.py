"""How long things took: percentiles, and confirms matched to what was sent. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` (0 to 1) of the values do not exceed; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class ConfirmTimes:
    """How long confirms take, one measurement for each slice of messages: from when the slice was
    accepted until its last message is confirmed. Publishing ids count from `first` on.
    """

    __slots__ = ("_open", "next", "seconds")

    def __init__(self, first: int) -> None:
        self.next = first
        self.seconds: list[float] = []
        self._open: deque[tuple[int, float]] = deque()

    def sent(self, messages: int, now: float) -> None:
        """A slice is about to be accepted."""
        self.next += messages
        self._open.append((self.next - 1, now))

    def confirmed(self, ids: Sequence[int], now: float) -> None:
        """The broker confirmed these, and with them what was sent before."""
        last = max(ids)
        while self._open and self._open[0][0] <= last:
            self.seconds.append(now - self._open.popleft()[1])
