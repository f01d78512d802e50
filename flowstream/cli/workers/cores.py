"""How many workers `--workers auto` is: the cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The limit of a container: microseconds of CPU in a period, and the period."""


def usable_cores(quota: Path = QUOTA) -> int:
    """The cores of the machine, less what affinity or the container's limit takes away."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _allowed(quota)))


def _allowed(quota: Path) -> int:
    try:
        amount, period = quota.read_text().split()
        return math.ceil(int(amount) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no limit ("max"), or not Linux
        return os.cpu_count() or 1
