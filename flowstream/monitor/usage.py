"""What this process takes of the machine: processor time and memory, now and over the last minutes.

Worker processes (`processes=True`) are not in it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any

from flowstream.monitor.figures import HISTORY

WINDOW = 5
"""Samples that the share of a core is taken over."""

_STATM = Path("/proc/self/statm")


def resident_memory() -> int | None:
    """Bytes of memory that the process holds now; None where the system does not say.

    It reads a file, so it belongs into a worker thread.
    """
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class Usage:
    """Samples of a clock, the processor's seconds, and the memory."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, int | None]] = deque(maxlen=HISTORY)

    def sample(self, now: float, memory: int | None, cpu: float | None = None) -> None:
        """Keep what was used up to this moment; `cpu` is the process's own seconds by default."""
        self._samples.append((now, time.process_time() if cpu is None else cpu, memory))

    def describe(self) -> dict[str, Any]:
        """As JSON-ready data. `cpu` is in cores: 1.0 is one that is busy all the time."""
        samples = list(self._samples)
        memory = samples[-1][2] if samples else None
        recent = samples[-1 - WINDOW :]
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
