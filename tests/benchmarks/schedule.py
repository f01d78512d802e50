"""Which processes run, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tests.benchmarks.scenarios import Comparison, Scenario


@dataclass(frozen=True, slots=True)
class Turn:
    """One process of a scenario; `seed` is its PYTHONHASHSEED."""

    scenario: Scenario
    round: int
    seed: int


def choose(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Comparison]:
    """The comparisons with these names whole, and of others the scenarios with these names.

    A scenario brings its peers along. Without names everything is chosen. Raises LookupError for a
    name that nothing has.
    """
    known = {each.name for each in comparisons} | {
        scenario.name for each in comparisons for scenario in each.scenarios
    }
    if unknown := [name for name in names if name not in known]:
        raise LookupError(f"nothing is named {' or '.join(unknown)}; --list shows all names")
    if not names:
        return list(comparisons)
    chosen = []
    for comparison in comparisons:
        if comparison.name in names:
            chosen.append(comparison)
            continue
        by_name = {scenario.name: scenario for scenario in comparison.scenarios}
        wanted = [name for name in names if name in by_name]
        for name in wanted:  # grows while it is walked: peers have peers
            wanted += [peer for peer in by_name[name].peers if peer not in wanted]
        if wanted:
            kept = tuple(each for each in comparison.scenarios if each.name in wanted)
            chosen.append(replace(comparison, scenarios=kept))
    return chosen


def turns(comparison: Comparison, rounds: int) -> Iterator[Turn]:
    """All processes of a comparison: its scenarios take turns, in the other order every second
    round, so that a machine that slows down or warms up favours none of them."""
    for number in range(rounds):
        order = comparison.scenarios if number % 2 == 0 else comparison.scenarios[::-1]
        for scenario in order:
            for run in range(scenario.seeds):
                yield Turn(scenario, number, number * scenario.seeds + run)
