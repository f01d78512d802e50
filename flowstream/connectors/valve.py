"""The safety valve of dead letters: if too many messages fail, the pipeline halts. Pure.

It counts by offset, so the order in which failures arrive does not matter.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

BLOCK = 1000
"""The number of offsets that `max_ratio` is a share of."""
REMEMBERED = 64
"""How many blocks and runs of failures are remembered: the latest."""


class SafetyValve:
    """Trips at more than `max_ratio` failures in 1000 offsets, or more than `max_consecutive`."""

    def __init__(self, max_ratio: float | None, max_consecutive: int | None) -> None:
        self.max_ratio = max_ratio
        self.max_consecutive = max_consecutive
        self._blocks: OrderedDict[tuple[str, int], set[int]] = OrderedDict()
        self._runs: OrderedDict[tuple[str, int], int] = OrderedDict()

    def failed(self, stream: str, offset: int) -> str | None:
        """Count a failure. Returns the reason to halt if it is one too many."""
        return self._by_ratio(stream, offset) or self._in_a_row(stream, offset)

    def _by_ratio(self, stream: str, offset: int) -> str | None:
        if self.max_ratio is None:
            return None
        block = self._blocks.setdefault((stream, offset // BLOCK), set())
        block.add(offset)
        self._trim(self._blocks)
        if len(block) <= self.max_ratio * BLOCK:
            return None
        return f"more than {self.max_ratio:.0%} of {BLOCK} messages failed (max_ratio)"

    def _in_a_row(self, stream: str, offset: int) -> str | None:
        """`_runs` maps both ends of every run of failed offsets to its length."""
        if self.max_consecutive is None:
            return None
        left = self._runs.pop((stream, offset - 1), 0)
        right = self._runs.pop((stream, offset + 1), 0)
        length = left + right + 1
        self._runs[stream, offset - left] = self._runs[stream, offset + right] = length
        self._trim(self._runs)
        if length <= self.max_consecutive:
            return None
        return f"{length} messages in a row failed (max_consecutive={self.max_consecutive})"

    def _trim(self, entries: OrderedDict[tuple[str, int], Any]) -> None:
        while len(entries) > REMEMBERED:
            entries.popitem(last=False)
