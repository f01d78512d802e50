"""How waiting messages are cut into slices for workers: fair, bounded, and pure.

Without partitions there is one queue for all workers. With them a partition belongs to one
worker, which is what keeps the order of a partition.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

TARGET = 0.005
"""Seconds a slice should take: short enough to share out, long enough to be cheap."""
FIRST_LIMIT = 16


class SliceSizer:
    """The size of a slice: a fair share of what waits, and no more than TARGET seconds of work.

    Slow handlers so get single messages from one queue, and fast ones get slices of up to
    `max_demand` that cost next to nothing to hand over.
    """

    __slots__ = ("_limit", "max_demand")

    def __init__(self, max_demand: int) -> None:
        self.max_demand = max_demand
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


class Pending(Generic[T]):
    """A queue of runs, read in slices of any size. Order in is order out."""

    __slots__ = ("_runs", "_start", "count")

    def __init__(self) -> None:
        self._runs: deque[list[T]] = deque()
        self._start = 0
        self.count = 0

    def put(self, run: list[T]) -> None:
        """Queue a run; it belongs to the queue from now on."""
        if run:
            self._runs.append(run)
            self.count += len(run)

    def put_front(self, run: list[T]) -> None:
        """Queue a run ahead of everything that waits."""
        if not run:
            return
        if self._start:
            self._runs[0] = self._runs[0][self._start :]
            self._start = 0
        self._runs.appendleft(run)
        self.count += len(run)

    def take(self, count: int) -> list[T]:
        """The next `count` items, or as many as there are."""
        taken = self._head(count)
        while len(taken) < count and self._runs:
            taken.extend(self._head(count - len(taken)))
        self.count -= len(taken)
        return taken

    def _head(self, count: int) -> list[T]:
        if not self._runs:
            return []
        run, start = self._runs[0], self._start
        if len(run) - start <= count:
            self._runs.popleft()
            self._start = 0
            return run[start:] if start else run
        self._start = start + count
        return run[start : start + count]

    def __len__(self) -> int:
        return self.count
