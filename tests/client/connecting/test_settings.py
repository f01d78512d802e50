"""Backoff: delays between attempts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from flowstream.client import Backoff


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(1, 5), st.randoms())
def test_delays_stay_between_half_and_all_of_a_ceiling(
    attempt: int, initial: float, factor: float, chance: random.Random
) -> None:
    backoff = Backoff(initial, initial * 50, factor)
    delay = backoff.delay(attempt, chance.uniform)
    assert initial / 2 <= delay <= initial * 50
    assert Backoff().delay(1, lambda low, high: low) == 0.05
    assert Backoff().delay(100, lambda low, high: high) == 5.0
