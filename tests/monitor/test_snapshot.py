"""What a snapshot shows of one pipeline, from its statistics and its history."""

from __future__ import annotations

import dataclasses

import pytest

from flowstream.cli.view.live_view import plain_line
from flowstream.monitor import Board
from flowstream.monitor.condition import RECENT
from flowstream.pipeline import HotKey, Reason
from flowstream.telemetry import (
    Dropped,
    Halted,
    Settled,
)
from tests.monitor.figures import BATCHER, PARTITION, PROCESSOR, Changing


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_paused_pipeline_says_so() -> None:
    board, statistics = Board(Clock()), Changing()
    board.watch("p", statistics)
    statistics.change(paused=True)
    assert board.snapshot()["pipelines"][0]["phase"] == "paused"


def test_a_handler_that_everything_waits_for_is_named_after_slow_after() -> None:
    """It was `running`, and then `lagging`, without a reason, until it counted as stuck."""
    board, statistics = Board(Clock()), Changing()
    board.watch("p", statistics)
    waiting = dataclasses.replace(BATCHER, name="load", longest=12.4)
    seen = []
    for phase, age in (("running", 9.0), ("running", 12.0), ("draining", 13.0)):
        statistics.change(stages=(PROCESSOR, waiting), progress_age=age, phase=phase)
        seen += board.snapshot()["pipelines"]
    assert [each["condition"]["name"] for each in seen] == ["running", "slow", "draining"]
    pipeline = seen[-1]
    assert pipeline["condition"]["why"] == (
        "a call of the handler of load has been running for 12 s, and no message was settled for "
        "13 s"
    )
    assert pipeline["condition"]["runbook"] == "runbooks#flowstreamhandlerstuck"
    line = plain_line(pipeline, now=0.0)
    assert line.startswith("p: draining (a call of the handler of load has been running for 12 s,")


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


def test_a_hot_key_is_told_with_its_share() -> None:
    board, statistics = Board(Clock()), Changing()
    board.watch("p", statistics)
    hot = dataclasses.replace(PROCESSOR, hot_key=HotKey(0.42, "orders@1234"))
    statistics.change(stages=(hot, BATCHER))
    (pipeline,) = board.snapshot()["pipelines"]
    assert [stage["hot_key"] for stage in pipeline["stages"]] == [
        {"share": 0.42, "sample": "orders@1234"}, None,
    ]  # fmt: skip


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
        partitions = tuple(dataclasses.replace(PARTITION, catch_up=each) for each in times)
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
    statistics.change(partitions=(dataclasses.replace(PARTITION, tail=None, lag=None),))
    board.sample()
    assert board.snapshot()["pipelines"][0]["lag"] is None
