"""Readiness: each check turns false for its reason, at its time, and true again afterwards."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flowstream.monitor.health import (
    COMMITS_MISSED,
    FOREIGN_COMMIT_SHOWN,
    RECOVERY_GRACE,
    TRUNCATION_SHOWN,
    Disconnected,
    ForeignCommit,
    PipelineHealth,
    Truncation,
    readiness,
)
from flowstream.pipeline import Statistics
from flowstream.telemetry import OffsetMoved
from tests.monitor.figures import PARTITION, PROCESSOR, RUNNING


def watched(**values: Any) -> PipelineHealth:
    return PipelineHealth("p", dataclasses.replace(RUNNING, **values))


def failing(pipeline: PipelineHealth) -> dict[str, str]:
    return {check.name: check.detail for check in readiness([pipeline]) if not check.ok}


def stuck(statistics: Statistics, seconds: float) -> PipelineHealth:
    stage = dataclasses.replace(PROCESSOR, longest=seconds)
    return PipelineHealth("p", dataclasses.replace(statistics, stages=(stage,)))


def test_a_run_that_gets_on_is_ready() -> None:
    checks = readiness([watched()])
    assert all(check.ok for check in checks)
    names = ["phase", "broker", "handlers", "progress", "commits", "offset", "retention"]
    assert [check.labels for check in checks] == [("p", name) for name in names]


def test_nothing_and_a_run_that_starts_are_not() -> None:
    assert [check.ok for check in readiness([])] == [False]
    assert failing(PipelineHealth("p", None)) == {"phase": "the run is starting"}


@pytest.mark.parametrize("phase", ["starting", "draining", "closing", "stopped"])
def test_only_a_running_or_paused_run_is_ready(phase: str) -> None:
    assert failing(watched(phase=phase)) == {"phase": f"the run is {phase}"}
    assert failing(watched(paused=True)) == {}


def test_the_broker_may_be_away_for_a_moment() -> None:
    for seconds, reason in ((RECOVERY_GRACE, None), (RECOVERY_GRACE + 1, "reset")):
        away = Disconnected("consumer", "s", "recovering", seconds, "reset")
        found = failing(dataclasses.replace(watched(), disconnected=[away]))
        expected = f"the consumer of 's' has been disconnected for {seconds:.0f} s: reset"
        assert found == ({} if reason is None else {"broker": expected})


def test_a_loss_is_one_text_however_many_wait() -> None:
    names = [f"orders-{number}" for number in range(12)]
    away = [
        Disconnected("environment", "e", "recovering", 4.0, "reset"),
        *(Disconnected("consumer", name, "recovering", 4.0, "reset") for name in names),
        Disconnected("publisher", "dead", "recovering", 3.0, "reset"),
    ]
    assert failing(dataclasses.replace(watched(), disconnected=away)) == {
        "broker": "the consumers of 'orders-0', 'orders-1', 'orders-10', 'orders-11', 'orders-2' "
        "and 7 more and the publisher of 'dead' have been disconnected for 4 s: reset"
    }
    assert failing(dataclasses.replace(watched(), disconnected=away[:1])) == {
        "broker": "the client has been disconnected for 4 s: reset"
    }


def test_connecting_for_the_first_time_is_not_ready() -> None:
    away = Disconnected("environment", "e", "connecting", 0.0, "")
    assert failing(dataclasses.replace(watched(), disconnected=[away])) == {
        "broker": "the client is connecting"
    }


def test_a_stuck_handler() -> None:
    assert failing(stuck(RUNNING, RUNNING.stuck_after)) == {}
    assert failing(stuck(RUNNING, RUNNING.stuck_after + 1)) == {
        "handlers": "a handler of 'processor' has made no progress for 61 s"
    }


@pytest.mark.parametrize(
    ("in_flight", "progress_age", "oldest", "ok"),
    [
        (50, 62.0, 62.0, False),
        (50, 60.5, 60.5, True),  # a batch may wait for its timeout
        (50, 62.0, 2.0, True),  # idle for a minute, then a message came
        (0, 10_000.0, 0.0, True),
        (50, 0.1, 10_000.0, True),  # the oldest one waits for another attempt, the others settle
    ],
)
def test_messages_in_flight_have_to_settle(
    in_flight: int, progress_age: float, oldest: float, ok: bool
) -> None:
    partition = dataclasses.replace(PARTITION, oldest=oldest)
    found = failing(
        watched(in_flight=in_flight, progress_age=progress_age, partitions=(partition,))
    )
    assert (found == {}) is ok


def test_what_settled_has_to_be_committed() -> None:
    limit = COMMITS_MISSED * RUNNING.commit_interval
    assert failing(watched(uncommitted=limit)) == {}
    assert list(failing(watched(uncommitted=limit + 1))) == ["commits"]


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        ({"tail": 362}, False),
        ({"tail": None}, True),  # empty, or emptied by retention
        ({"tail": 500}, True),
        ({"tail": 362, "received": 501}, True),  # the end was looked at before
        ({"tail": 362, "active": False}, True),  # the process that reads it reports it
        ({"tail": 362, "committed": None}, True),
    ],
)
def test_a_stored_offset_beyond_the_stream(changes: dict[str, Any], ok: bool) -> None:
    beyond = {"stream": "shop", "received": None, "committed": 500} | changes
    partition = dataclasses.replace(PARTITION, **beyond)
    assert failing(watched(partitions=(partition,))) == (
        {}
        if ok
        else {
            "offset": "offset 500 of 'shop' is stored, and the stream ends at 362: no message "
            "before 501 is handled"
        }
    )


def test_a_loss_to_retention_is_shown_for_a_while() -> None:
    for seconds, ok in ((0.0, False), (TRUNCATION_SHOWN, False), (TRUNCATION_SHOWN + 1, True)):
        found = failing(dataclasses.replace(watched(), truncation=Truncation(7, seconds)))
        assert (found == {}) is ok
        assert ok or found["retention"].startswith("7 messages were lost")


def test_what_else_stores_offsets_is_told_for_a_while_and_fails_nothing() -> None:
    event = OffsetMoved("p", "orders", "shop", None, 12)
    for seconds, told in ((5, True), (FOREIGN_COMMIT_SHOWN + 1, False)):
        pipeline = dataclasses.replace(watched(), foreign_commit=ForeignCommit(event, seconds))
        checks = {check.name: check for check in readiness([pipeline])}
        assert all(check.ok for check in checks.values())
        said = (
            "5 s ago, the stored offset of 'orders' under the reference 'shop' was 12, from "
            "another writer (this run stored none)"
        )
        assert (said in checks["commits"].detail) is told
