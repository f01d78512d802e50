"""What is called when: one heap for all timers of a run. Pure: `now` is given."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class TimerQueue:
    """Callbacks by time. Those of the same time are called in the order of their entry."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def at(self, when: float, callback: Callable[[], None]) -> bool:
        """Enter a callback; True when it is now the earliest."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, callback))
        return self._heap[0][1] == self._sequence

    def due(self, now: float) -> list[Callable[[], None]]:
        """Remove and return what is due, in order."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    @property
    def next(self) -> float | None:
        """When the earliest callback is due."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
