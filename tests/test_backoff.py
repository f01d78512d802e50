"""Delays between attempts: of handlers, and of connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import Backoff


@given(
    st.integers(1, 10_000), st.floats(0.001, 10), st.floats(1, 5), st.floats(0, 1), st.floats(0, 1)
)
def test_delays_stay_within_their_jitter(
    attempt: int, initial: float, factor: float, jitter: float, chance: float
) -> None:
    backoff = Backoff(initial, factor=factor, maximum=initial * 50, jitter=jitter)
    delay = backoff.delay(attempt, chance)
    assert initial * (1 - jitter) * 0.999 <= delay <= backoff.maximum


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1), st.integers(1, 100), st.floats(0, 1))
def test_no_delay_is_above_the_maximum(
    initial: float, maximum: float, jitter: float, attempt: int, chance: float
) -> None:
    assert 0 <= Backoff(initial, maximum=maximum, jitter=jitter).delay(attempt, chance) <= maximum


def test_delays_differ_at_the_maximum_too() -> None:
    backoff = Backoff(0.1, maximum=12, jitter=0.2)
    assert [backoff.delay(99, chance) for chance in (0, 0.5, 1)] == pytest.approx([8, 10, 12])


def test_delays_grow_to_the_maximum() -> None:
    backoff = Backoff(0.1, maximum=0.5, jitter=0)
    assert [backoff.delay(attempt) for attempt in (1, 2, 3, 4, 100)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_only_the_first_delay_is_positional() -> None:
    with pytest.raises(TypeError):
        Backoff(0.1, 2)  # type: ignore[misc]


@given(st.integers(1, 200), st.floats(0, 0.999999))
def test_backoff_grows_to_its_maximum_within_its_jitter(attempt, chance):
    backoff = Backoff(initial=0.5, factor=2, maximum=10, jitter=0.3)
    base = min(10 / 1.3, 0.5 * 2 ** (attempt - 1))
    assert base * 0.7 - 1e-9 <= backoff.delay(attempt, chance) <= base * 1.3 + 1e-9
