"""What the board keeps of a pipeline: reasons of drops, and figures over all partitions."""

from __future__ import annotations

import dataclasses

import pytest

from flowstream.monitor.figures import MAX_REASONS, PipelineFigures, oldest, slowest, total_lag
from flowstream.pipeline import Statistics
from tests.monitor.figures import PARTITION, RUNNING


def over(*partitions: dict[str, float | None]) -> Statistics:
    return dataclasses.replace(
        RUNNING,
        partitions=tuple(dataclasses.replace(PARTITION, **each) for each in partitions),  # type: ignore[arg-type]
    )


def test_reasons_of_drops_are_bounded_and_none_is_lost() -> None:
    figures = PipelineFigures("orders", 0.0)
    for n in range(MAX_REASONS + 5):
        figures.drop(f"reason {n}", 2, intentional=True)
    figures.drop("reason 0", 1, intentional=True)
    figures.drop("reason 0", 4, intentional=False)
    assert figures.dropped["reason 0", True] == 3
    assert figures.dropped["other", True] == 10
    assert figures.dropped["other", False] == 4
    assert sum(figures.dropped.values()) == 2 * (MAX_REASONS + 5) + 5


def test_only_what_failed_is_given_up() -> None:
    figures = PipelineFigures("orders", 0.0)
    figures.drop("not for us", 10, intentional=True)
    figures.drop("ValueError", 3, intentional=False)
    statistics = dataclasses.replace(RUNNING, settled={"ok": 5, "dead_lettered": 2})
    assert figures.given_up(statistics) == 5


@pytest.mark.parametrize(
    ("partitions", "age", "time", "lag"),
    [
        ((), None, None, None),
        (({"lag": 3, "lag_seconds": 2.0, "catch_up": 5.0},), 2.0, 5.0, 3),
        (
            (
                {"lag": 3, "lag_seconds": 2.0, "catch_up": 5.0},
                {"lag": None, "lag_seconds": None, "catch_up": None},
            ),
            2.0,
            None,
            3,
        ),
        (
            (
                {"lag": 3, "lag_seconds": 2.0, "catch_up": 5.0},
                {"lag": 4, "lag_seconds": 9.0, "catch_up": 1.0},
            ),
            9.0,
            5.0,
            7,
        ),
    ],
)
def test_figures_over_all_partitions(
    partitions: tuple[dict[str, float | None], ...],
    age: float | None,
    time: float | None,
    lag: int | None,
) -> None:
    statistics = over(*partitions)
    assert (oldest(statistics), slowest(statistics), total_lag(statistics)) == (age, time, lag)
