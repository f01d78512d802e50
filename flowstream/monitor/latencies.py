"""How long messages took, as counts in buckets that grow by a tenth: quantiles within 5 %. Pure.

One observation may stand for a whole slice, so it costs the same however many messages that has.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

SMALLEST = 0.001
"""Seconds: what is quicker counts as this."""

_GROWTH = math.log(1.1)
BUCKETS = 240
"""From a millisecond to three months; what takes longer counts as the last."""

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Latencies:
    """Counts since the start, and how they stood at each of the last `window` samples."""

    __slots__ = ("_counts", "_samples")

    def __init__(self, window: int) -> None:
        self._counts = [0] * BUCKETS
        self._samples: deque[tuple[int, ...]] = deque([tuple(self._counts)], maxlen=window + 1)

    def observe(self, seconds: float, messages: int) -> None:
        """Count messages that took so long."""
        place = 0 if seconds <= SMALLEST else int(math.log(seconds / SMALLEST) / _GROWTH)
        self._counts[min(place, BUCKETS - 1)] += messages

    def sample(self) -> None:
        """Keep the counts of this moment."""
        self._samples.append(tuple(self._counts))

    def quantiles(self) -> dict[str, float | None]:
        """Seconds of what was settled within the window; None where nothing was."""
        counts = [now - then for now, then in zip(self._counts, self._samples[0], strict=True)]
        return {name: quantile(counts, share) for name, share in QUANTILES.items()}

    def last(self, share: float) -> float | None:
        """The quantile of what was settled between the last two samples."""
        if len(self._samples) < 2:
            return None
        after, before = self._samples[-1], self._samples[-2]
        return quantile([new - old for new, old in zip(after, before, strict=True)], share)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The seconds that `share` of the counted messages took at most; None where there are none."""
    total = sum(counts)
    wanted = max(share * total, 1)
    seen = 0
    for place, count in enumerate(counts):
        if count and seen + count >= wanted:
            return SMALLEST * math.exp(_GROWTH * (place + (wanted - seen) / count))
        seen += count
    return None
