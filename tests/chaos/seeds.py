"""The seed of a test that kills."""

from __future__ import annotations

import os
import random


def new_seed() -> int:
    """That of CHAOS_SEED, or a new one. It is printed, so that a failure can be repeated."""
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1 << 32)))
    print(f"CHAOS_SEED={seed}")
    return seed
