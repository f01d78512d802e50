"""Medians, spreads and ratios."""

from __future__ import annotations

import pytest

from tests.benchmarks.figures import Measurement, Spread, ratios, rows
from tests.benchmarks.scenarios import Comparison, Scenario


def rate(round: int, rate: float, cpu: float = 1.0, seed: int = 0) -> Measurement:
    measured = {"messages": 1_000_000, "seconds": 1_000_000 / rate, "cpu": cpu, "peak_mib": 50.0}
    return Measurement(round, seed, measured)


def latency(round: int, p50: float, cpu: float, publisher: float) -> Measurement:
    quantiles = {"p50_ms": p50, "p99_ms": 2 * p50, "p999_ms": 3 * p50}
    measured = {"messages": 20_000, "seconds": 20, "cpu": cpu, "peak_mib": 50.0, **quantiles}
    return Measurement(round, 0, {**measured, "publisher": {"cpu": publisher}})


def test_a_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


def test_cpu_is_of_a_million_messages() -> None:
    measured = {"messages": 20_000, "seconds": 0.5, "cpu": 0.1, "peak_mib": 40.0}
    figures = Measurement(0, 0, measured).figures()
    assert figures == {"rate": 40_000, "cpu": 5.0, "peak_mib": 40.0}


def test_cpu_of_a_latency_is_that_of_both_processes() -> None:
    assert latency(0, 1.5, cpu=2.0, publisher=3.0).figures() == {
        "cpu": 5.0,
        "consumer_cpu": 2.0,
        "publisher_cpu": 3.0,
        "p50_ms": 1.5,
        "p99_ms": 3.0,
        "p999_ms": 4.5,
    }


def test_a_ratio_is_taken_within_a_round() -> None:
    ours = [rate(0, 100), rate(1, 10), rate(2, 100)]
    peers = [rate(0, 50), rate(1, 5), rate(2, 40)]
    assert ratios(ours, peers)["rate"] == pytest.approx(Spread(2.0, 2.0, 2.5))


def test_several_runs_of_a_round_count_each() -> None:
    ours = [rate(0, 100, seed=0), rate(0, 60, seed=1)]
    assert ratios(ours, [rate(0, 100)])["rate"] == pytest.approx(Spread(0.8, 0.6, 1.0))


def test_a_round_without_the_peer_does_not_count() -> None:
    found = ratios([rate(0, 100), rate(1, 1)], [rate(0, 50)])
    assert found["rate"] == pytest.approx(Spread(2.0, 2.0, 2.0))


def test_rows() -> None:
    comparison = Comparison(
        "x",
        "",
        (
            Scenario("peer", "the peer", ""),
            Scenario("ours", "ours", "", peers=("peer", "gone")),
            Scenario("gone", "gone", ""),
            Scenario("old", "old", "", recorded=("Broadway", 50)),
        ),
    )
    measurements = {
        "peer": [rate(0, 100, cpu=2.0)],
        "ours": [rate(0, 150, cpu=1.0)],
        "old": [rate(0, 100)],
    }
    peer, ours, gone, old = rows(comparison, measurements, {"gone": "skipped: why"})
    assert peer.figures["rate"].median == pytest.approx(100)
    (beside,) = ours.beside
    assert (beside.peer, beside.title) == ("peer", "the peer")
    assert beside.ratios["rate"].median == pytest.approx(1.5)
    assert beside.ratios["cpu"].median == pytest.approx(0.5)
    assert gone.missing == "skipped: why"
    assert old.beside[0].title == "Broadway, recorded"
    assert old.beside[0].ratios["rate"].median == pytest.approx(2.0)
