"""The board shows what statistics and events say, and its memory is bounded."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from flowstream.monitor import Board
from flowstream.monitor.figures import MAX_REASONS
from flowstream.monitor.history import HISTORY
from flowstream.telemetry import (
    BatchReady,
    ChunkReceived,
    Committed,
    ConnectionLost,
    ConnectionOpened,
    Dropped,
    PhaseChanged,
    StageCrashed,
    StateChanged,
    Truncated,
)
from tests.monitor.figures import PARTITION, PROCESSOR, RUNNING, Changing


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_snapshot_joins_statistics_and_events() -> None:
    clock = Clock()
    board = Board(clock)
    board.watch("p", Changing())
    for event in (
        PhaseChanged("p", "running", 0.1),
        ConnectionOpened("a:1", "consumer"),
        ConnectionOpened("a:1", "consumer"),
        ConnectionLost("a:1", "consumer", "reset", "network"),
        ChunkReceived("s", 100, 9_000, 7, 500, 0),
        BatchReady("p", "default", 50, "size", 0.25),
        BatchReady("p", "default", 48, "timeout", 1.0),
        Committed("p", "s", 500, False),
        StageCrashed("p", "default", "OSError", True),
        Committed("another", "s", 7, False),
    ):
        board.observe(event)
    clock.now += 3
    snapshot = board.snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    assert (snapshot["connections"], snapshot["lost"]) == ({"consumer": 1}, 1)
    (pipeline,) = snapshot["pipelines"]
    assert (pipeline["phase"], pipeline["phase_seconds"]) == ("running", 3)
    assert pipeline["outcomes"] == {"ok": 548, "dead_lettered": 2}
    assert (pipeline["settled"], pipeline["in_flight"], pipeline["lag"]) == (550, 50, 450)
    assert pipeline["crashes"] == 1
    processor, batcher = pipeline["stages"]
    assert (processor["name"], processor["batches"], processor["waiting"]) == ("processor", 0, 30)
    assert batcher["triggers"] == {"size": 1, "timeout": 1}
    assert (batcher["mean_batch"], batcher["mean_wait"]) == (49, 0.625)
    (stream,) = pipeline["streams"]
    assert (stream["committed"], stream["commit_age"], stream["credits"]) == (500, 3, 7)


def test_a_clock_that_is_set_back_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the clock had caught up, a lost connection failed no check, and old trouble stayed."""
    system, steady = Clock(), Clock()
    monkeypatch.setattr(time, "time", system)
    monkeypatch.setattr(time, "monotonic", steady)
    board = Board()
    board.watch("p", Changing())
    board.observe(StageCrashed("p", "default", "OSError", True))
    board.observe(Truncated("p", "s", 5))
    steady.now += 120
    system.now -= 3600
    board.observe(StateChanged("consumer", "s", "recovering", "reset", 0.0, "flowstream p"))
    steady.now += 10
    snapshot = board.snapshot()
    assert snapshot["uptime"] == 130
    assert [check["check"] for check in snapshot["not_ready"]] == ["broker"]
    assert [lost["for"] for lost in snapshot["losses"]] == [10]
    (pipeline,) = snapshot["pipelines"]
    assert pipeline["phase_seconds"] == 130
    assert pipeline["condition"]["name"] == "not ready", "it crashed two minutes ago"


def test_history_and_reasons_of_drops_are_bounded() -> None:
    clock = Clock()
    board = Board(clock)
    board.watch("p", Changing())
    for number in range(HISTORY + 20):
        board.observe(Dropped("p", "s", f"reason {number}", 1, True))
        clock.now += 1
        board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert len(pipeline["history"]["at"]) == HISTORY - 1
    assert len(pipeline["dropped"]) == MAX_REASONS + 1
    assert pipeline["dropped"][0] == {
        "reason": "other", "intentional": True, "messages": HISTORY + 20 - MAX_REASONS,
    }  # fmt: skip


def test_what_matters_first_is_in_front() -> None:
    clock = Clock()
    board = Board(clock)
    still = dataclasses.replace(RUNNING, received=0, in_flight=0, partitions=())
    names = ("feed", "idle", "orders", "audit", "broken")
    runs = {name: Changing(dataclasses.replace(still, pipeline=name)) for name in names}
    for name, statistics in runs.items():
        board.watch(name, statistics)
    runs["feed"].change(received=500)
    runs["orders"].change(received=500, partitions=(PARTITION,))
    runs["audit"].change(
        received=500, partitions=(dataclasses.replace(PARTITION, lag_seconds=95.0),)
    )
    failing = dataclasses.replace(PROCESSOR, handled=110, failed=12)
    runs["broken"].change(received=500, stages=(failing,))
    clock.now += 1
    board.sample()
    conditions = {it["name"]: it["condition"]["name"] for it in board.snapshot()["pipelines"]}
    assert list(conditions.items()) == [
        ("broken", "failing"),
        ("audit", "lagging"),
        ("orders", "running"),
        ("feed", "running"),
        ("idle", "idle"),
    ]


def test_what_is_away_is_told_by_environment_and_concerns_its_own_pipeline() -> None:
    clock = Clock()
    board = Board(clock)
    for name in ("a", "b"):
        board.watch(name, Changing())
    board.observe(StateChanged("consumer", "s", "connecting", "", 0.0))  # by the pipeline itself
    assert [len(each.disconnected) for each in board.health()] == [1, 1]
    board.observe(StateChanged("consumer", "s", "connecting", "", 0.0, "flowstream a"))
    assert [each["environment"] for each in board.snapshot()["away"]] == ["flowstream a"]
    for name in ("a", "b"):
        board.observe(StateChanged("consumer", "s", "open", "", 0.1, f"flowstream {name}"))
    assert [len(each.disconnected) for each in board.health()] == [0, 0]
    for name in ("a", "b", "shared"):
        event = StateChanged("consumer", "s", "recovering", "reset", 9.0, f"flowstream {name}")
        board.observe(event)
    board.observe(StateChanged("consumer", "s", "open", "", 0.1, "flowstream b"))
    clock.now += 3
    assert [[each.environment for each in watched.disconnected] for watched in board.health()] == [
        ["flowstream a", "flowstream shared"],
        ["flowstream shared"],
    ]
    assert board.losses() == [
        {
            "environment": f"flowstream {name}",
            "for": 3.0,
            "text": "the consumer of 's' has been disconnected for 3 s: reset",
        }
        for name in ("a", "shared")
    ]
