"""The condition of a pipeline: what is worth waking somebody, and what is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flowstream.monitor.advice import advice
from flowstream.monitor.condition import ORDER, Observed, Share, alarming, condition
from flowstream.monitor.health import Check

WELL = Observed(
    phase="running",
    paused=False,
    error="",
    attempts=[Share("processor", 1_000, 0)],
    given_up=Share("p", 1_000, 0),
    crashed=False,
    checks=[Check("p", "broker", True, "connected")],
    slow="",
    lagging=[],
    lag=5,
    received=1_000,
    in_flight=5,
    elsewhere=0,
    streams=1,
)
DISCONNECTED = Check("p", "broker", False, "the client has been disconnected for 12 s")


@pytest.mark.parametrize(
    ("total", "failed", "waking"),
    [
        (0, 0, False),
        (1_000, 0, False),
        (1_000, 1, False),  # what dead letters are for
        (1_000, 9, False),
        (1_000, 10, True),
        (20, 2, False),  # 10 %, but two messages are nobody's sleep
        (20, 3, True),
        (1, 1, True),  # all there was
        (2, 2, True),
        (2_200, 2_200, True),
    ],
)
def test_a_share_that_is_worth_waking(total: float, failed: float, waking: bool) -> None:
    assert alarming(Share("p", total, failed), 0.01) is waking


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "running"),
        ({"error": "order 7 is broken"}, "halted"),
        ({"error": "order 7 is broken", "phase": "stopped"}, "halted"),
        ({"given_up": Share("p", 1_000, 10)}, "failing"),
        ({"given_up": Share("p", 1_000, 9)}, "running"),
        ({"attempts": [Share("load", 30, 3)]}, "failing"),
        ({"attempts": [Share("load", 31, 3)]}, "running"),
        ({"attempts": [Share("load", 2_200, 2_200)], "checks": [DISCONNECTED]}, "failing"),
        ({"crashed": True}, "failing"),
        ({"checks": [DISCONNECTED]}, "not ready"),
        ({"lagging": ["s"]}, "lagging"),
        ({"slow": "load waits", "lagging": ["s"]}, "slow"),
        ({"slow": "load waits", "checks": [DISCONNECTED]}, "not ready"),
        ({"lagging": ["s"], "paused": True}, "paused"),
        ({"phase": "draining", "lagging": ["s"]}, "draining"),
        ({"phase": "starting"}, "starting"),
        ({"phase": "stopped", "checks": [Check("p", "phase", False, "stopped")]}, "stopped"),
        ({"paused": True}, "paused"),
        ({"received": 0, "in_flight": 0, "lag": 0}, "idle"),
        ({"received": 0, "in_flight": 0, "lag": None}, "idle"),
        ({"received": 0, "in_flight": 1, "lag": 0}, "running"),
        ({"received": 0, "in_flight": 0, "lag": 9}, "running"),
        ({"elsewhere": 3, "streams": 0, "received": 0, "in_flight": 0}, "standing by"),
    ],
)
def test_the_worst_that_holds_is_shown(changes: dict[str, Any], name: str) -> None:
    found = condition(dataclasses.replace(WELL, **changes))
    assert found.name == name
    assert found.name in ORDER
    assert found.why or name in {"running", "starting", "draining", "stopped"}


def test_what_is_wrong_says_what_to_do() -> None:
    failing = condition(dataclasses.replace(WELL, attempts=[Share("load", 100, 40)]))
    assert failing.why == "40 of 100 attempts of load failed in the last minute"
    assert failing.level == "bad"
    about = advice(failing.topic)
    assert "reasons" in about["advice"]
    assert about["runbook"].endswith("#flowstreamdeadlettering")
    broken = condition(dataclasses.replace(WELL, checks=[DISCONNECTED]))
    assert broken.why == DISCONNECTED.detail
    assert advice(broken.topic)["runbook"].endswith("#flowstreamdisconnected")
    assert advice("") == {}
