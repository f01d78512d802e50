"""The board shows what statistics and events say, and its memory is bounded."""

from __future__ import annotations

import dataclasses
import json

import pytest

from flowstream.monitor import Board
from flowstream.monitor.condition import RECENT
from flowstream.monitor.figures import HISTORY, MAX_REASONS
from flowstream.pipeline import Reason
from flowstream.telemetry import (
    BatchReady,
    ChunkReceived,
    Committed,
    ConnectionLost,
    ConnectionOpened,
    Dropped,
    Halted,
    PhaseChanged,
    Settled,
    StageCrashed,
    StateChanged,
)
from tests.monitor.figures import BATCHER, LANE, PROCESSOR, RUNNING, Changing


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


def test_a_paused_pipeline_says_so() -> None:
    board, statistics = Board(Clock()), Changing()
    board.watch("p", statistics)
    statistics.change(paused=True)
    assert board.snapshot()["pipelines"][0]["phase"] == "paused"


def test_rates_are_taken_over_the_last_seconds() -> None:
    clock, statistics = Clock(), Changing()
    board = Board(clock)
    statistics.change(settled={}, stages=())
    board.watch("p", statistics)
    settled, seconds = 0, 0.0
    for second in range(10):
        settled += 100 if second < 5 else 1_000
        seconds += 2.0
        times = {"busy": seconds, "idle": seconds}
        stage = dataclasses.replace(PROCESSOR, times=times)
        statistics.change(settled={"ok": settled}, stages=(stage,))
        clock.now += 1
        board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert pipeline["rate"] == 1_000
    assert pipeline["stages"][0]["states"] == {"busy": 0.5, "idle": 0.5}
    assert pipeline["history"]["rate"] == [100] * 5 + [1_000] * 5


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


def test_reasons_are_those_of_the_statistics() -> None:
    """They count whether or not somebody observes the run."""
    board, statistics = Board(Clock()), Changing()
    board.watch("p", statistics)
    reason = Reason(
        "load", "batch", "ConnectionError", "ConnectionError: away", 2_200, 2_200, 0, 0, 0,
        first=1.0, last=2.0, stream="s", offset=7, traceback="Traceback ...", sample="{}",
    )  # fmt: skip
    statistics.change(reasons=(reason,), failed_attempts=2_200, failed=0)
    (pipeline,) = board.snapshot()["pipelines"]
    assert (pipeline["failed"], pipeline["failed_attempts"]) == (0, 2_200)
    assert pipeline["reasons"] == [dataclasses.asdict(reason)]


def test_what_matters_first_is_in_front() -> None:
    clock = Clock()
    board = Board(clock)
    still = dataclasses.replace(RUNNING, received=0, in_flight=0, partitions=())
    names = ("feed", "idle", "orders", "audit", "broken")
    runs = {name: Changing(dataclasses.replace(still, pipeline=name)) for name in names}
    for name, statistics in runs.items():
        board.watch(name, statistics)
    runs["feed"].change(received=500)
    runs["orders"].change(received=500, partitions=(LANE,))
    runs["audit"].change(received=500, partitions=(dataclasses.replace(LANE, lag_seconds=95.0),))
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


def test_a_pipeline_that_an_error_ends_is_halted() -> None:
    board = Board(Clock())
    board.watch("p", Changing())
    board.observe(Halted("p", "Halted", "pipeline 'p' stopped at s@7: no"))
    (pipeline,) = board.snapshot()["pipelines"]
    assert pipeline["condition"]["name"] == "halted"
    assert "s@7" in pipeline["condition"]["why"]
    assert "--discard" in pipeline["condition"]["advice"]
    assert board.snapshot()["events"][0]["level"] == "error"


def test_a_stage_fails_by_its_attempts_of_the_last_minute() -> None:
    """Also where every one of them is to be tried again, and nothing is given up."""
    clock, statistics = Clock(), Changing()
    board = Board(clock)
    statistics.change(settled={}, failed=0, retried=0)
    board.watch("p", statistics)
    failing = dataclasses.replace(BATCHER, handled=2_300, failed=2_200, retried=2_200)
    statistics.change(stages=(PROCESSOR, failing), failed_attempts=2_200)
    clock.now += 1
    board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert pipeline["condition"]["why"] == (
        "2,200 of 2,200 attempts of default failed in the last minute"
    )
    assert [stage["failing"] for stage in pipeline["stages"]] == [False, True]
    assert pipeline["history"]["failed"] == [2_200]
    for _ in range(RECENT):
        clock.now += 1
        board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert pipeline["condition"]["name"] == "running"


def test_a_source_fails_where_a_tenth_of_it_is_not_decodable() -> None:
    clock, statistics = Clock(), Changing()
    board = Board(clock)
    board.watch("p", statistics)
    for broken, failing in ((9, False), (10, True)):
        reason = Reason(
            "processor", "decode", "ValidationError", "no", broken, 0, 0, 0, 0, 1.0, 2.0
        )
        statistics.change(received=700, reasons=(reason,))
        clock.now += 1
        board.sample()
        assert board.snapshot()["pipelines"][0]["source"]["failing"] is failing


def test_messages_that_were_discarded_on_request_are_not_given_up() -> None:
    clock, statistics = Clock(), Changing()
    board = Board(clock)
    board.watch("p", statistics)
    statistics.change(settled={"ok": 548, "dead_lettered": 2, "discarded": 5})
    board.observe(Dropped("p", "s", "discarded on request", 5, True))
    clock.now += 1
    board.sample()
    assert board.snapshot()["pipelines"][0]["condition"]["name"] == "running"
    statistics.change(settled={"ok": 548, "dead_lettered": 2, "discarded": 10})
    board.observe(Dropped("p", "s", "ValueError", 5, False))
    clock.now += 1
    board.sample()
    assert board.snapshot()["pipelines"][0]["condition"]["name"] == "failing"


def test_the_time_to_catch_up_is_that_of_the_slowest_stream() -> None:
    clock, statistics = Clock(), Changing()
    board = Board(clock)
    board.watch("p", statistics)
    for times, left in (((16.0,), 16.0), ((16.0, 20.0), 20.0), ((16.0, None), None), ((0.0,), 0.0)):
        partitions = tuple(dataclasses.replace(LANE, catch_up=each) for each in times)
        statistics.change(partitions=partitions)
        assert board.snapshot()["pipelines"][0]["catch_up"] == left


def test_latencies_have_quantiles_beside_the_mean() -> None:
    clock = Clock()
    board = Board(clock)
    board.watch("p", Changing())
    board.observe(Settled("p", "s", "ok", 980, 0.02))
    board.observe(Settled("p", "s", "ok", 20, 2.0))
    clock.now += 1
    board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert pipeline["latency"] == pytest.approx(0.0596)
    quantiles = pipeline["latency_quantiles"]
    assert quantiles["p50"] == pytest.approx(0.02, rel=0.1)
    assert quantiles["p99"] == pytest.approx(2.0, rel=0.1)
    assert pipeline["history"]["p99"] == [pytest.approx(2.0, rel=0.1)]


def test_the_lag_is_unknown_while_no_end_is_known() -> None:
    board, statistics = Board(Clock()), Changing()
    board.watch("p", statistics)
    statistics.change(partitions=(dataclasses.replace(LANE, tail=None, lag=None),))
    board.sample()
    assert board.snapshot()["pipelines"][0]["lag"] is None


def test_what_is_away_is_told_by_environment_and_concerns_its_own_pipeline() -> None:
    clock = Clock()
    board = Board(clock)
    for name in ("a", "b"):
        board.watch(name, Changing())
    board.observe(StateChanged("consumer", "s", "connecting", "", 0.0))  # by the pipeline itself
    assert [len(each.away) for each in board.watched()] == [1, 1]
    for name in ("a", "b"):
        board.observe(StateChanged("consumer", "s", "open", "", 0.1, f"flowstream {name}"))
    assert [len(each.away) for each in board.watched()] == [0, 0]
    for name in ("a", "b", "shared"):
        event = StateChanged("consumer", "s", "recovering", "reset", 9.0, f"flowstream {name}")
        board.observe(event)
    board.observe(StateChanged("consumer", "s", "open", "", 0.1, "flowstream b"))
    clock.now += 3
    assert [[each.environment for each in watched.away] for watched in board.watched()] == [
        ["flowstream a", "flowstream shared"],
        ["flowstream shared"],
    ]
    assert board.losses() == [
        {
            "environment": f"flowstream {name}",
            "for": 3.0,
            "text": "the consumer of 's' has been without its broker for 3 s: reset",
        }
        for name in ("a", "shared")
    ]
