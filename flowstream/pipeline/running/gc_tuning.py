"""Python's garbage collector, tuned for a run: it costs as much as everything else otherwise.

Messages live for milliseconds in the thousands and hold no cycles, so collecting every 700
allocations finds nothing. What exists when a run starts is frozen (never looked at again), and
the youngest generation is collected every THRESHOLD allocations.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLD = 200_000


@contextmanager
def tuned_collector(enabled: bool = True) -> Iterator[None]:
    """Freeze what exists and collect rarely inside; `enabled=False` changes nothing."""
    if not enabled:
        yield
        return
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
