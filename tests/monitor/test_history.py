"""What is kept of the last minutes: counts, latencies and usage; of recent samples, and bounded."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.monitor.history import (
    BUCKETS,
    HISTORY,
    QUANTILES,
    RATE_WINDOW,
    SMALLEST_LATENCY,
    History,
    Latencies,
    ProcessUsage,
    quantile,
    resident_memory,
)


def sample(at: float, **counts: float) -> dict[str, float]:
    return {"at": at, "settled": 0.0, "failed": 0.0, "latency": 0.0, "timed": 0.0, "p99": 0.0,
            "lag": 0.0, "in_flight": 0.0, **counts}  # fmt: skip


# --- counts -------------------------------------------------------------------------------------


def test_without_two_samples_nothing_is_known() -> None:
    history = History()
    for count in range(2):
        assert len(history) == count
        assert (history.rate("settled"), history.grown("settled", 60)) == (0.0, 0.0)
        assert (history.time_shares("load"), history.mean_latency()) == ({}, None)
        history.add(sample(1.0, settled=5.0))


def test_rates_and_growth_are_those_of_their_windows() -> None:
    history = History()
    for second in range(20):
        settled = 10.0 * second if second < 10 else 100.0 + 1_000.0 * (second - 10)
        history.add(sample(float(second), settled=settled))
    assert history.rate("settled") == 1_000.0
    assert history.grown("settled", RATE_WINDOW) == 5_000.0
    assert history.grown("settled", 60) == 9_100.0
    assert (history.rate("new"), history.grown("new", 60)) == (0.0, 0.0)


def test_a_count_that_falls_has_not_grown() -> None:
    history = History()
    history.add(sample(1.0, settled=9.0))
    history.add(sample(2.0, settled=4.0))
    assert history.grown("settled", 60) == 0.0


def test_a_clock_that_stands_still_has_no_rate() -> None:
    history = History()
    history.add(sample(1.0))
    history.add(sample(1.0, settled=4.0, **{"load:busy": 1.0, "load:idle": 3.0}))
    assert history.rate("settled") == 0.0
    assert history.curves()["rate"] == [0.0]
    assert history.time_shares("load") == {"busy": 0.25, "idle": 0.75}
    assert history.time_shares("loader") == {}


def test_the_history_is_bounded() -> None:
    history = History()
    for second in range(HISTORY + 10):
        history.add(sample(float(second)))
    assert len(history) == HISTORY
    assert history.curves()["at"][0] == 11.0


# --- latencies ----------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-3.0, SMALLEST_LATENCY),
        (0.0, SMALLEST_LATENCY),
        (SMALLEST_LATENCY / 2, SMALLEST_LATENCY),
        (1e12, SMALLEST_LATENCY * 1.1**BUCKETS),
    ],
)
def test_what_is_out_of_range_counts_at_the_ends(value: float, expected: float) -> None:
    """A clock that was set back makes a latency negative."""
    latencies = Latencies(60)
    latencies.observe(value, 7)
    assert latencies.quantiles()["p50"] == pytest.approx(expected, rel=0.11)


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


# --- the process ----------------------------------------------------------------------------------


def test_the_processor_is_told_in_cores() -> None:
    usage = ProcessUsage()
    assert usage.describe()["cpu"] is None
    for second in range(4):
        usage.sample(100.0 + second, 50_000_000 + second, cpu=7.0 + 1.5 * second)
    shown = usage.describe()
    assert shown["cpu"] == pytest.approx(1.5)
    assert shown["memory"] == 50_000_003
    assert shown["history"]["at"] == [101.0, 102.0, 103.0]
    assert shown["history"]["cpu"] == pytest.approx([1.5, 1.5, 1.5])


def test_a_clock_that_does_not_move_breaks_nothing() -> None:
    usage = ProcessUsage()
    usage.sample(1.0, None, cpu=1.0)
    usage.sample(1.0, None, cpu=2.0)
    assert (usage.describe()["cpu"], usage.describe()["memory"]) == (0.0, None)


def test_the_usage_is_bounded() -> None:
    usage = ProcessUsage()
    for second in range(HISTORY + 10):
        usage.sample(float(second), 1, cpu=0.0)
    assert len(usage.describe()["history"]["at"]) == HISTORY - 1


def test_the_system_tells_the_memory() -> None:
    memory = resident_memory()
    if not Path("/proc/self/status").exists():
        assert memory is None
        return
    (kibibytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert memory == pytest.approx(int(kibibytes) * 1024, rel=0.2)
