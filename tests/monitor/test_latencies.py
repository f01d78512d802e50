"""Quantiles of latencies: near the truth, of the last samples only, and bounded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.monitor.latencies import BUCKETS, QUANTILES, SMALLEST, Latencies, quantile

seconds = st.floats(0.001, 1e6)


@given(st.lists(st.tuples(seconds, st.integers(1, 1000)), min_size=1, max_size=40))
def test_quantiles_are_within_a_bucket_of_the_truth(observed: list[tuple[float, int]]) -> None:
    latencies = Latencies(60)
    for value, messages in observed:
        latencies.observe(value, messages)
    ordered = sorted(observed)
    total = sum(messages for _, messages in ordered)
    for name, share in QUANTILES.items():
        seen, truth = 0, ordered[-1][0]
        for value, messages in ordered:
            seen += messages
            if seen >= max(share * total, 1):
                truth = value
                break
        found = latencies.quantiles()[name]
        assert found is not None
        assert truth / 1.11 <= found <= truth * 1.11


def test_what_is_older_than_the_window_is_forgotten() -> None:
    latencies = Latencies(3)
    latencies.observe(100.0, 5)
    for _ in range(3):
        latencies.sample()
        assert latencies.quantiles()["p50"] == pytest.approx(100, rel=0.1)
    latencies.sample()
    assert latencies.quantiles() == {"p50": None, "p95": None, "p99": None}
    latencies.observe(0.5, 1)
    assert latencies.quantiles()["p99"] == pytest.approx(0.5, rel=0.1)


def test_the_last_sample_has_a_quantile_of_its_own() -> None:
    latencies = Latencies(60)
    assert latencies.last(0.99) is None
    latencies.observe(9.0, 1_000)
    latencies.sample()
    latencies.observe(0.01, 1)
    latencies.sample()
    assert latencies.last(0.99) == pytest.approx(0.01, rel=0.1)
    latencies.sample()
    assert latencies.last(0.99) is None


@pytest.mark.parametrize("value", [-3.0, 0.0, SMALLEST / 2, 1e12])
def test_what_is_out_of_range_counts_at_the_ends(value: float) -> None:
    """A clock that was set back makes a latency negative."""
    latencies = Latencies(60)
    latencies.observe(value, 7)
    assert latencies.quantiles()["p50"] is not None


def test_nothing_has_no_quantile() -> None:
    assert quantile([0] * BUCKETS, 0.5) is None


def test_the_tail_is_seen() -> None:
    random.seed(7)
    latencies = Latencies(60)
    for _ in range(10_000):
        latencies.observe(2.0 if random.random() < 0.02 else 0.02, 1)
    found = latencies.quantiles()
    assert found["p50"] == pytest.approx(0.02, rel=0.1)
    assert found["p95"] == pytest.approx(0.02, rel=0.1)
    assert found["p99"] == pytest.approx(2.0, rel=0.1)
