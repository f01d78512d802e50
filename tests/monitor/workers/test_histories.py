"""Curves of several workers, second by second."""

from __future__ import annotations

from flowstream.monitor.history import HISTORY
from flowstream.monitor.workers.histories import merged_curves, weighted


def curves(at: list[float], rate: list[float]) -> dict[str, list[float]]:
    flat = [1.0] * len(at)
    return {"at": at, "rate": rate, "failed": flat, "latency": rate, "p99": rate, "lag": rate,
            "in_flight": flat}  # fmt: skip


def test_samples_of_the_same_second_are_added() -> None:
    merged = merged_curves([curves([10.1, 11.2], [2.0, 4.0]), curves([11.1, 12.0], [6.0, 1.0])])
    assert merged["at"] == [10.0, 11.0, 12.0]
    assert merged["rate"] == [2.0, 10.0, 1.0]
    assert merged["p99"] == [2.0, 6.0, 1.0]
    assert merged["latency"][1] == (4 * 4 + 6 * 6) / 10
    assert merged["in_flight"] == [1.0, 2.0, 1.0]


def test_curves_stay_bounded() -> None:
    long = [float(second) for second in range(HISTORY * 2)]
    assert len(merged_curves([curves(long, long)])["at"]) == HISTORY


def test_a_mean_without_weights() -> None:
    assert weighted([(5.0, 0.0)]) == 0.0
    assert weighted([(None, 3.0), (2.0, 1.0)]) == 2.0
