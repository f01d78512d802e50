"""Statistics -> gauges, one table: what a scrape reads from the running pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from flowstream.metrics import Metrics
from flowstream.monitor.board import Board
from flowstream.pipeline import LaneStatistics, StageStatistics, Statistics

Getter: TypeAlias = Callable[[Any], float | None]

PIPELINE: dict[str, Callable[[Statistics], float | None]] = {
    "in_flight_messages": lambda s: s.in_flight,
    "in_flight_bytes": lambda s: s.in_flight_bytes,
    "max_in_flight_messages": lambda s: s.max_in_flight,
    "progress_age_seconds": lambda s: s.progress_age,
}
STAGE: dict[str, Callable[[StageStatistics], float | None]] = {
    "workers": lambda s: s.concurrency,
    "busy_workers": lambda s: s.busy,
    "waiting_messages": lambda s: s.waiting,
    "parked_messages": lambda s: s.parked,
    "longest_handler_seconds": lambda s: s.longest,
}
LANE: dict[str, Callable[[LaneStatistics], float | None]] = {
    "received_offset": lambda s: s.received,
    "settled_offset": lambda s: s.watermark,
    "lag_messages": lambda s: s.lag,
    "lag_seconds": lambda s: s.lag_seconds,
}


def refresh(metrics: Metrics, board: Board) -> None:
    """Set every gauge that statistics know; what is not known yet is left out."""
    for statistics in board.statistics():
        name = statistics.pipeline
        _set(metrics, PIPELINE, statistics, name)
        for stage in statistics.stages:
            _set(metrics, STAGE, stage, name, stage.name)
        for lane in statistics.lanes:
            _set(metrics, LANE, lane, name, lane.stream)


def _set(metrics: Metrics, table: dict[str, Getter], source: object, *labels: str) -> None:
    for name, get in table.items():
        value = get(source)
        if value is not None:
            metrics.set(name, value, *labels)
