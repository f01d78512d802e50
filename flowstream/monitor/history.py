"""What is kept of the last minutes, one sample a second: counts, latencies, processor and memory.

Pure, and bounded: at most `HISTORY` samples of each. Only `resident_memory` reads a file.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

HISTORY = 300
"""Samples kept: five minutes at one a second."""

RATE_WINDOW = 5
"""Samples that a rate, or a share of time, is taken over."""

LATENCY_WINDOW = 10
"""Samples that latencies are taken over: the mean and the quantiles."""

Sample: TypeAlias = dict[str, float]
"""Counts at one moment, "at", by their name; a stage's are "STAGE:STATE", in seconds."""


class History:
    """Samples of the counts of one pipeline, and how the counts grew between them."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=HISTORY)

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Sample) -> None:
        """Keep a sample; the oldest is dropped."""
        self._samples.append(sample)

    def grown(self, key: str, window: int) -> float:
        """How much a count grew within the last `window` samples."""
        if len(self._samples) < 2:
            return 0.0
        first, last = self._ends(window)
        return max(last.get(key, 0.0) - first.get(key, 0.0), 0.0)

    def rate(self, key: str) -> float:
        """How fast a count grew per second over the last `RATE_WINDOW` samples."""
        if len(self._samples) < 2:
            return 0.0
        first, last = self._ends(RATE_WINDOW)
        seconds = last["at"] - first["at"]
        return (last.get(key, 0.0) - first.get(key, 0.0)) / seconds if seconds > 0 else 0.0

    def time_shares(self, stage: str) -> dict[str, float]:
        """The share of its time that a stage spent in each state lately; they add up to 1."""
        if len(self._samples) < 2:
            return {}
        first, last = self._ends(RATE_WINDOW)
        prefix = f"{stage}:"
        spent = {
            key.removeprefix(prefix): max(value - first.get(key, 0.0), 0.0)
            for key, value in last.items()
            if key.startswith(prefix)
        }
        whole = sum(spent.values())
        return {state: seconds / whole for state, seconds in spent.items()} if whole > 0 else {}

    def mean_latency(self) -> float | None:
        """Mean seconds from publishing to settled, over the last `LATENCY_WINDOW` samples."""
        if len(self._samples) < 2:
            return None
        return _latency(*self._ends(LATENCY_WINDOW))

    def curves(self) -> dict[str, list[float]]:
        """What the small charts draw: one point per sample."""
        points = list(self._samples)
        steps = list(pairwise(points))
        return {
            "at": [point["at"] for point in points[1:]],
            "rate": [_per_second(before, after, "settled") for before, after in steps],
            "failed": [_per_second(before, after, "failed") for before, after in steps],
            "latency": [_latency(before, after) or 0.0 for before, after in steps],
            "p99": [point["p99"] for point in points[1:]],
            "lag": [point["lag"] for point in points[1:]],
            "in_flight": [point["in_flight"] for point in points[1:]],
        }

    def _ends(self, window: int) -> tuple[Sample, Sample]:
        return self._samples[max(0, len(self._samples) - 1 - window)], self._samples[-1]


def _latency(before: Sample, after: Sample) -> float | None:
    count = after["timed"] - before["timed"]
    return (after["latency"] - before["latency"]) / count if count else None


def _per_second(before: Sample, after: Sample, key: str) -> float:
    seconds = after["at"] - before["at"]
    return (after[key] - before[key]) / seconds if seconds > 0 else 0.0


# --- latencies ----------------------------------------------------------------------------------

SMALLEST_LATENCY = 0.001
"""Seconds: a shorter latency counts as this."""

_GROWTH = math.log(1.1)
BUCKETS = 240
"""From a millisecond to three months; a longer latency counts in the last bucket."""

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Latencies:
    """How long messages took, as counts in buckets that grow by a tenth: quantiles within 5 %.

    It has the counts since the start, and those at each of the last `window` samples. One
    observation may count for a whole slice, so it costs the same however many messages that has.
    """

    __slots__ = ("_counts", "_samples")

    def __init__(self, window: int) -> None:
        self._counts = [0] * BUCKETS
        self._samples: deque[tuple[int, ...]] = deque([tuple(self._counts)], maxlen=window + 1)

    def observe(self, seconds: float, messages: int) -> None:
        """Count messages that took this long."""
        bucket = 0
        if seconds > SMALLEST_LATENCY:
            bucket = int(math.log(seconds / SMALLEST_LATENCY) / _GROWTH)
        self._counts[min(bucket, BUCKETS - 1)] += messages

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
    """The most seconds that `share` of the counted messages took; None without messages."""
    total = sum(counts)
    wanted = max(share * total, 1)
    seen = 0
    for bucket, count in enumerate(counts):
        if count and seen + count >= wanted:
            return SMALLEST_LATENCY * math.exp(_GROWTH * (bucket + (wanted - seen) / count))
        seen += count
    return None


# --- the process --------------------------------------------------------------------------------

_STATM = Path("/proc/self/statm")


def resident_memory() -> int | None:
    """Bytes of memory that the process uses now; None on a system without /proc.

    It reads a file: call it in a worker thread.
    """
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class ProcessUsage:
    """How much processor time and memory this process used; its worker processes not included."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, int | None]] = deque(maxlen=HISTORY)

    def sample(self, now: float, memory: int | None, cpu: float | None = None) -> None:
        """Keep what was used until now; `cpu` is the process's own seconds by default."""
        self._samples.append((now, time.process_time() if cpu is None else cpu, memory))

    def describe(self) -> dict[str, Any]:
        """The usage as JSON-ready data. `cpu` is in cores: 1.0 is one core, all of the time."""
        samples = list(self._samples)
        memory = samples[-1][2] if samples else None
        recent = samples[-1 - RATE_WINDOW :]
        return {
            "pid": os.getpid(),
            "cores": os.cpu_count(),
            "cpu": _cores(recent[0], recent[-1]) if len(recent) > 1 else None,
            "memory": memory,
            "history": {
                "at": [at for at, _, _ in samples[1:]],
                "cpu": [_cores(before, after) for before, after in pairwise(samples)],
                "memory": [memory or 0 for _, _, memory in samples[1:]],
            },
        }


def _cores(before: tuple[float, float, Any], after: tuple[float, float, Any]) -> float:
    passed = after[0] - before[0]
    return max((after[1] - before[1]) / passed, 0.0) if passed > 0 else 0.0
