"""From the measurements of processes to medians, spreads and ratios."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.scenarios import Comparison, Scenario


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, and the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        found = sorted(figures)
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True, slots=True)
class Beside:
    """What a scenario has times as much as a peer, by figure; `recorded` is a rate of before."""

    title: str
    ratios: Mapping[str, Spread]
    peer: str | None = None
    recorded: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of a scenario: its figures by name, or why there are none."""

    name: str
    title: str
    figures: Mapping[str, Spread] = field(default_factory=dict)
    beside: tuple[Beside, ...] = ()
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one process printed, in a round."""

    round: int
    seed: int
    measured: Mapping[str, Any]

    def figures(self) -> dict[str, float]:
        """By name: `rate` (messages/s), `cpu` (seconds for a million messages), `peak_mib`, ...

        Where latency was measured, `cpu` is the seconds of consumer and publisher for the whole
        run, beside `consumer_cpu`, `publisher_cpu` and the quantiles in milliseconds.
        """
        one = self.measured
        if "publisher" in one:
            parts = {"consumer_cpu": one["cpu"], "publisher_cpu": one["publisher"]["cpu"]}
            quantiles = {name: one[name] for name in ("p50_ms", "p99_ms", "p999_ms")}
            return {"cpu": sum(parts.values()), **parts, **quantiles}
        memory = {name: one[name] for name in ("peak_mib", "growth_mib") if name in one}
        return {
            "rate": one["messages"] / one["seconds"],
            "cpu": one["cpu"] * 1_000_000 / one["messages"],
            **memory,
        }


Measurements = Mapping[str, Sequence[Measurement]]
"""By the name of the scenario."""


def rows(
    comparison: Comparison, measurements: Measurements, missing: Mapping[str, str]
) -> list[Row]:
    """A row for each scenario; `missing` says why one has no measurements."""
    titles = {scenario.name: scenario.title for scenario in comparison.scenarios}
    found = []
    for scenario in comparison.scenarios:
        mine = measurements.get(scenario.name, ())
        if not mine:
            reason = missing.get(scenario.name, "not measured")
            found.append(Row(scenario.name, scenario.title, missing=reason))
            continue
        beside = [
            Beside(titles[peer], ratios(mine, measurements[peer]), peer)
            for peer in scenario.peers
            if measurements.get(peer)
        ]
        figures = _spreads(one.figures() for one in mine)
        if scenario.recorded is not None:
            beside.append(_recorded(scenario, mine))
        found.append(Row(scenario.name, scenario.title, figures, tuple(beside)))
    return found


def ratios(ours: Sequence[Measurement], peers: Sequence[Measurement]) -> dict[str, Spread]:
    """Of each figure: ours divided by the peer's median of the same round.

    What slows a whole round down cancels out. A round without the peer does not count.
    """
    by_round: dict[int, list[dict[str, float]]] = defaultdict(list)
    for peer in peers:
        by_round[peer.round].append(peer.figures())
    found: list[dict[str, float]] = []
    for one in ours:
        others = by_round.get(one.round)
        if not others:
            continue
        medians = {name: spread.median for name, spread in _spreads(others).items()}
        found.append(
            {
                name: figure / medians[name]
                for name, figure in one.figures().items()
                if medians.get(name)
            }
        )
    return _spreads(found)


def _recorded(scenario: Scenario, ours: Sequence[Measurement]) -> Beside:
    assert scenario.recorded is not None
    title, rate = scenario.recorded
    ratio = Spread.of(one.figures()["rate"] / rate for one in ours)
    return Beside(f"{title}, recorded", {"rate": ratio}, recorded=rate)


def _spreads(each: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    by_name: dict[str, list[float]] = defaultdict(list)
    for figures in each:
        for name, figure in figures.items():
            by_name[name].append(figure)
    return {name: Spread.of(found) for name, found in by_name.items()}
