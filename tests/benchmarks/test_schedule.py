"""Names choose scenarios with their peers; the scenarios take turns."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.benchmarks.scenarios import COMPARISONS, Comparison, Scenario
from tests.benchmarks.schedule import choose, turns

SCENARIOS = [scenario for each in COMPARISONS for scenario in each.scenarios]


def test_names_are_unique_and_peers_are_beside() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    titles = [scenario.title for scenario in SCENARIOS]
    assert len(set(names)) == len(set(titles)) == len(names)
    for comparison in COMPARISONS:
        inside = {scenario.name for scenario in comparison.scenarios}
        for scenario in comparison.scenarios:
            assert set(scenario.peers) <= inside - {scenario.name}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_run_exists(scenario: Scenario) -> None:
    for run in filter(None, (scenario.run, scenario.publisher)):
        module, _, function = run.partition(".")
        assert callable(getattr(import_module(f"tests.benchmarks.{module}"), function))


def chosen(*names: str) -> dict[str, list[str]]:
    return {
        each.name: [scenario.name for scenario in each.scenarios]
        for each in choose(COMPARISONS, names)
    }


def test_everything_is_chosen_without_names() -> None:
    assert choose(COMPARISONS, []) == list(COMPARISONS)


def test_a_scenario_brings_its_peers_and_theirs() -> None:
    assert chosen("threads") == {
        "consume": [
            "rstream-consume",
            "rstream-consume-stored",
            "processor-batcher",
            "threads",
        ]
    }


def test_a_comparison_comes_whole() -> None:
    found = chosen("sink", "memory-json")
    assert found == {"sink": ["rstream-copy", "sink"], "memory": ["memory-json"]}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(LookupError, match="nothing is named wings"):
        choose(COMPARISONS, ["sink", "wings"])


A, B, C = Scenario("a", "", ""), Scenario("b", "", ""), Scenario("c", "", "", seeds=2)


def test_scenarios_take_turns_in_both_orders() -> None:
    found = [(turn.scenario.name, turn.round) for turn in turns(Comparison("x", "", (A, B)), 3)]
    assert found == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_each_run_with_seeds_has_another_one() -> None:
    found = list(turns(Comparison("x", "", (A, C)), 5))
    seeds = [turn.seed for turn in found if turn.scenario is C]
    assert sorted(seeds) == list(range(10))
    assert {turn.seed for turn in found if turn.scenario is A} == set(range(5))
