"""Small simulations: nothing is lost, and what an event costs; docs/scale.md has the large ones.

Each simulation ends with the check that every published message was handled.
"""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.simulation.__main__ import CURVES, IMAGES, PAGE, RECORDED, curves, written
from tests.simulation.network import Network
from tests.simulation.scenarios import simulate
from tests.simulation.workers import SIZE
from tests.support.curves import Curve, draw, nice

PARTITIONS, WORKERS = 12, 3
RATE = 20.0
COMMIT_INTERVAL = 5.0

pytestmark = pytest.mark.medium


def test_workers_that_come_and_go_repeat_nothing_and_those_that_are_killed_what_was_not_committed():
    found = simulate(
        *("join", "leave", "kill"), partitions=PARTITIONS, workers=WORKERS, within=2.0, rate=RATE
    )
    assert set(found["start"].load) == {PARTITIONS // WORKERS}
    assert found["join"].load == (3, 3, 3, 3)
    for name in ("join", "leave"):
        assert found[name].repeated == 0
        assert 0 < found[name].moves <= 2 * PARTITIONS
    most = PARTITIONS / WORKERS * (RATE * COMMIT_INTERVAL + 2 * SIZE)
    assert 0 < found["kill"].repeated <= most
    assert found["kill"].takeover < 3.0


@pytest.mark.slow
def test_a_node_that_dies_costs_seconds_and_a_roll_evens_the_load_out():
    found = simulate("node", "roll", partitions=PARTITIONS, workers=WORKERS, within=2.0)
    assert found["node"].seconds < 5.0
    assert sum(found["node"].load) == PARTITIONS
    assert found["roll"].repeated == 0
    assert found["roll"].most == 1.0


@pytest.mark.slow
def test_workers_of_one_parent_are_even_at_the_start_and_again_after_a_node_died():
    """They start at the same moment, and take turns. Without the parent the load stays uneven."""
    options: dict[str, Any] = {"partitions": 24, "workers": 8, "rate": 5.0}
    led, alone = simulate("node", "rebalance", led=True, **options), simulate("node", **options)
    assert led["start"].most == 1.0
    assert led["start"].seconds < 2.0
    assert led["node"].most > 1.25
    assert led["rebalance"].most == 1.0
    assert led["rebalance"].repeated == 0
    assert alone["node"].most > 1.25


def test_a_machine_that_disappears_is_noticed_after_its_heartbeats():
    network = Network(detect=120.0)
    found = simulate("kill", partitions=4, workers=2, within=1.0, rate=1.0, network=network)
    assert 120.0 < found["kill"].takeover < 125.0


def test_a_simulation_can_be_repeated():
    first, second = (simulate("kill", partitions=6, workers=2) for _ in range(2))
    assert first == second


def test_the_page_has_the_recorded_results_and_their_curves():
    recorded = json.loads(RECORDED.read_text())
    assert written(PAGE.read_text(), recorded) == PAGE.read_text()
    for file, title, name, what in CURVES:
        drawn = draw(title, "workers", curves(recorded, name, what))
        assert (IMAGES / f"{file}.svg").read_text() == drawn


def test_curves_are_drawn_within_their_frame():
    root = ElementTree.fromstring(draw("t", "n", [Curve("a", [(1, 0.0), (64, 7.0)])]))
    places = root.findall(".//{*}polyline")[0].attrib["points"].split()
    xs, ys = zip(*(map(float, place.split(",")) for place in places), strict=True)
    assert xs == (56.0, 490.0)
    assert 40.0 <= min(ys) < max(ys) == 276.0


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1.0), (0.3, 0.4), (1.0, 1.0), (7, 8), (9, 10), (11, 20), (25, 40)]
)
def test_the_top_of_a_scale(value: float, top: float) -> None:
    assert nice(value) == pytest.approx(top)
