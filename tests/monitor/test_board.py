"""The board's figures are what the events say, and its memory is bounded."""

from __future__ import annotations

import json

from flowstream.monitor import Board
from flowstream.monitor.board import HISTORY, MAX_FAILURES
from flowstream.telemetry import (
    BatchReady,
    ChunkReceived,
    Committed,
    ConnectionLost,
    ConnectionOpened,
    Failed,
    HandlerDone,
    PhaseChanged,
    Received,
    Retried,
    Settled,
)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_snapshot_tells_what_the_events_told() -> None:
    clock = Clock()
    board = Board(clock)
    for event in (
        PhaseChanged("p", "running", 0.1),
        ConnectionOpened("a:1", "consumer"),
        ConnectionOpened("a:1", "consumer"),
        ConnectionLost("a:1", "consumer", "reset"),
        ChunkReceived("s", 100, 9_000, 7, 500),
        Received("p", "s", 100, 8_000),
        HandlerDone("p", "processor", 100, 2, 0.5),
        Failed("p", "processor", "process", "ValueError", 2),
        Retried("p", "processor", 1, 1, 0.5),
        BatchReady("p", "default", 50, 4_000, "size", 0.25),
        BatchReady("p", "default", 48, 4_000, "timeout", 1.0),
        Settled("p", "s", "ok", 48),
        Settled("p", "s", "dead_lettered", 2),
        Committed("p", "s", 49, False),
    ):
        board.observe(event)
    clock.now += 3
    snapshot = board.snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    assert snapshot["connections"] == {"consumer": 1}
    assert snapshot["reconnects"] == 1
    (pipeline,) = snapshot["pipelines"]
    assert pipeline["phase"] == "running"
    assert pipeline["phase_seconds"] == 3
    assert pipeline["outcomes"] == {"ok": 48, "dead_lettered": 2}
    assert pipeline["in_flight"] == 50
    assert (pipeline["failed"], pipeline["retried"]) == (2, 1)
    assert pipeline["failures"][0]["error"] == "ValueError"
    processor, batcher = pipeline["stages"]
    assert (processor["name"], processor["handled"], processor["failed"]) == ("processor", 100, 2)
    assert batcher["triggers"] == {"size": 1, "timeout": 1}
    assert batcher["mean_wait"] == 0.625
    (stream,) = pipeline["streams"]
    assert (stream["committed"], stream["commit_age"], stream["lag"]) == (49, 3, 451)
    assert stream["credits"] == 7


def test_rates_are_taken_over_the_last_seconds() -> None:
    clock = Clock()
    board = Board(clock)
    for second in range(10):
        board.observe(Received("p", "s", 1_000, 1))
        board.observe(Settled("p", "s", "ok", 100 if second < 4 else 1_000))
        board.observe(HandlerDone("p", "processor", 1, 0, 0.25))
        clock.now += 1
        board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert pipeline["rate"] == 1_000
    assert pipeline["stages"][0]["busy"] == 0.25
    assert pipeline["history"]["rate"] == [100] * 3 + [1_000] * 6


def test_history_and_failures_are_bounded() -> None:
    clock = Clock()
    board = Board(clock)
    for _ in range(HISTORY + 20):
        board.observe(Failed("p", "processor", "process", "ValueError", 1))
        clock.now += 1
        board.sample()
    (pipeline,) = board.snapshot()["pipelines"]
    assert len(pipeline["history"]["at"]) == HISTORY - 1
    assert len(pipeline["failures"]) == MAX_FAILURES
    assert pipeline["failed"] == HISTORY + 20


def test_a_stream_without_a_commit_lags_by_all_of_it() -> None:
    board = Board(Clock())
    board.observe(ChunkReceived("s", 10, 100, 7, 99))
    board.observe(Received("p", "s", 10, 100))
    (stream,) = board.snapshot()["pipelines"][0]["streams"]
    assert stream["lag"] == 100
