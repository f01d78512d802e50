"""The live view has room in every window: what is in trouble, lags and fails comes first."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flowstream.cli.view.fold import fitted
from flowstream.cli.view.live_view import blocks, plain_line, waited_for
from flowstream.monitor import Board
from tests.monitor.figures import BATCHER, PARTITION, PROCESSOR, RUNNING, Changing

WINDOWS = [(60, 24), (80, 24), (80, 12), (200, 50), (20, 5)]
LONG = "the-" + "very-" * 40 + "long-name[red]"


def reason(stage: str, error: str, text: str, attempts: int, **counts: int) -> dict[str, Any]:
    return {
        "stage": stage,
        "handler": "",
        "phase": "process",
        "error": error,
        "text": text,
        "attempts": attempts,
        "last": 100.0,
        "retried": 0,
        "dead_lettered": 0,
        "discarded": 0,
        "halted": 0,
        **counts,
    }


REASONS = [
    reason("load", "ConnectionError", "no route to warehouse:5432", 2_200, retried=2_200),
    reason("check", "", "amount must be positive [red]", 3, dead_lettered=3),
]


def snapshot(*names: str, partitions: int = 1, stages: int = 2, **options: Any) -> dict[str, Any]:
    """Running pipelines with so many partitions and stages; `options` change their statistics."""
    board = Board(clock=lambda: 102.0)
    each = [
        dataclasses.replace(PARTITION, stream=f"orders-{n}", lag=n * 10) for n in range(partitions)
    ]
    more = [dataclasses.replace(BATCHER, name=f"batcher-{n}") for n in range(stages - 1)]
    for name in names:
        statistics = dataclasses.replace(
            RUNNING, pipeline=name, stages=(PROCESSOR, *more), partitions=tuple(each), **options
        )
        board.watch(name, Changing(statistics))
        board.sample()
    return board.snapshot()


def drawn(taken: dict[str, Any], width: int = 80, height: int = 23) -> list[str]:
    lines = fitted(blocks(taken, width), width, height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    return [line.plain for line in lines]


@pytest.mark.parametrize(("width", "height"), WINDOWS)
@pytest.mark.parametrize("names", [["p"], ["p", "q"], [f"p{n}" for n in range(30)], [LONG]])
def test_every_window_is_enough(width: int, height: int, names: list[str]) -> None:
    taken = snapshot(*names, partitions=40, stages=12)
    taken["pipelines"][0]["reasons"] = [*REASONS, reason(LONG, "E" * 500, "月" * 3_000, 1)]
    lines = drawn(taken, width, height)
    if height > 5:
        assert "no room for" in lines[-1]


def test_what_matters_comes_first_at_80_by_24() -> None:
    taken = snapshot("orders", partitions=12)
    taken["pipelines"][0]["reasons"] = REASONS
    lines = drawn(taken)
    assert lines[0].startswith("orders  running for 0.0 s  lag 660, oldest 1.5 s  0/s  2 failed")
    assert lines[1:3] == [
        "  2,200 ConnectionError in load: no route to warehouse:5432 (2,200 retried,",
        "    last 2.0 s ago)",
    ]
    text = "\n".join(lines)
    assert "in flight  50 of 10,000" in text
    assert "settled    550  548 ok, 2 dead-lettered" in text
    first_stream = next(line for line in lines if line.startswith("orders-"))
    assert first_stream.split()[0] == "orders-11", "the one that is furthest behind"
    assert lines[-1].startswith("no room for ")


def test_all_of_a_pipeline_has_room_at_80_by_24() -> None:
    taken = snapshot("orders", partitions=3, stages=3)
    taken["pipelines"][0]["reasons"] = REASONS
    lines = drawn(taken)
    assert "no room" not in lines[-1]
    assert any("3 in check: amount must be positive [red] " in it for it in lines)


def test_a_long_name_is_whole() -> None:
    lines = drawn(snapshot(LONG), 80, 40)
    joined = "".join(line.strip() for line in lines)
    assert LONG in joined


def test_every_pipeline_is_named_before_one_is_shown_whole() -> None:
    taken = snapshot("failing", "lagging", "paused", partitions=1)
    for pipeline, level in zip(taken["pipelines"], ("bad", "warn", "quiet"), strict=True):
        condition = {"name": pipeline["name"], "level": level, "why": f"why {level}"}
        pipeline |= {"condition": condition}
    taken["pipelines"][0]["reasons"] = REASONS
    assert drawn(taken, height=8) == [
        "failing  running for 0.0 s, failing  lag 0  0/s  2 failed",
        "  why bad",
        "  2,200 ConnectionError in load: no route to warehouse:5432 (2,200 retried,",
        "    last 2.0 s ago)",
        "lagging  running for 0.0 s, lagging  lag 0  0/s  2 failed",
        "  why warn",
        "paused  running for 0.0 s, paused  lag 0  0/s  2 failed",
        "no room for 1 reason, 15 figures, 6 stages, 3 streams: make the window larger",
    ]


def test_a_long_reason_leaves_room_for_figures() -> None:
    taken = snapshot("orders", "returns", partitions=1)
    taken["pipelines"][0]["reasons"] = [reason("load", "", "月 much too long " * 300, 7)]
    lines = drawn(taken)
    assert sum("too long" in line for line in lines) <= 4
    assert any(line.startswith("in flight  50 of 10,000") for line in lines)
    assert any(line.startswith("returns  running") for line in lines)


def test_what_is_waited_for_is_shown() -> None:
    taken = snapshot("p")
    taken["starting"] = ["q"]
    taken["away"] = [
        {"kind": "consumer", "name": "orders", "state": "recovering", "reason": "the broker\nwent",
         "for": 12.0}
    ]  # fmt: skip
    lines = drawn(taken)
    assert lines[:2] == ["consumer orders: recovering for 12 s: the broker went", "q  starting"]
    assert [*waited_for(taken)] == [
        "q: starting for 0.0 s",
        "consumer orders: recovering for 12 s: the broker went",
    ]
    assert [*waited_for(taken, least=12.5)] == ["q: starting for 0.0 s"]


def test_a_broker_that_is_away_is_a_line_for_each_kind_however_many_wait_for_it() -> None:
    taken = snapshot("p")
    taken["away"] = [
        {"kind": "consumer", "name": f"orders-{partition}", "state": "recovering",
         "reason": "no broker", "for": 10.0 + worker}
        for worker in range(16)
        for partition in range(64)
    ]  # fmt: skip
    taken["away"].append({"kind": "environment", "name": "orders", "state": "recovering",
                          "reason": "", "for": 3.0})  # fmt: skip
    lines = [
        "consumers orders-0, orders-1, orders-2, orders-3, orders-4 and 59 more: "
        "recovering for 25 s: no broker",
        "environment orders: recovering for 3.0 s",
    ]
    assert [*waited_for(taken)] == lines
    assert lines[1] in drawn(taken)[:3]  # the first one is wrapped


def test_the_time_to_catch_up_stands_beside_the_lag() -> None:
    taken = snapshot("p", partitions=3)
    taken["pipelines"][0]["catch_up"] = 200.0
    assert "lag 30, oldest 1.5 s, caught up in 3 min 20 s" in drawn(taken)[0]


def test_the_newest_events_are_shown_where_there_is_room() -> None:
    taken = snapshot("p")
    taken["events"] = [
        {"at": 90.0 - n, "level": "warning", "pipeline": "p", "text": f"event {n}", "count": n}
        for n in range(20)
    ]
    assert "12 s ago  p: event 0" in drawn(taken, height=40)
    assert "14 s ago  p: event 2 (2 times)" in drawn(taken, height=40)
    assert "no room" not in drawn(taken, height=12)[-1]


def test_a_plain_line_says_how_many_and_why() -> None:
    (pipeline,) = snapshot("p")["pipelines"]
    pipeline["reasons"] = REASONS
    pipeline["stages"][1]["batches"] = 1
    assert plain_line(pipeline, 102.0) == (
        "p: running, 0/s, 550 settled, lag 0, 50 in flight, 1 batch, 2 failed, "
        "committed orders-0@500; 2,200 ConnectionError in load: no route to warehouse:5432 "
        "(2,200 retried, last 2.0 s ago); 3 in check: amount must be positive [red] "
        "(3 dead-lettered, last 2.0 s ago)"
    )


def test_workers_that_are_all_gone_are_told_of() -> None:
    gone = snapshot()
    gone["workers"] = [{"restarts": 0}, {"restarts": 2}]
    gone["not_ready"] = [{"pipeline": "", "detail": "workers 1, 2 are not running: killed"},
                         {"pipeline": "p", "detail": "shown with its pipeline"}]  # fmt: skip
    assert [*waited_for(gone)] == ["workers 1, 2 are not running: killed"]
    gone["workers"] = [{"restarts": 0}]  # it starts
    assert [*waited_for(gone)] == []


def test_a_plain_line_says_why_a_pipeline_is_not_ready() -> None:
    board = Board(clock=lambda: 102.0)
    slow = dataclasses.replace(PROCESSOR, longest=75.0)
    board.watch("p", Changing(dataclasses.replace(RUNNING, stages=(slow,))))
    (pipeline,) = board.snapshot()["pipelines"]
    assert plain_line(pipeline, 102.0).startswith(
        "p: running, not ready (a handler of 'processor' has made no progress for 75 s), 0/s, 5"
    )
