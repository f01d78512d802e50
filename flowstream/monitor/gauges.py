"""The metrics that a scrape reads from the statistics of running pipelines: a table for each kind.

Every scrape replaces all values, so that a partition that moved to another process leaves none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from flowstream.metrics import Metrics
from flowstream.monitor.board import Board
from flowstream.monitor.health import readiness
from flowstream.pipeline import PartitionStatistics, RateLimit, StageStatistics, Statistics

T = TypeVar("T")
Rows: TypeAlias = dict[tuple[str, ...], float]
Table: TypeAlias = dict[str, Callable[[T], float | None]]

PIPELINE: Table[Statistics] = {
    "in_flight_messages": lambda s: s.in_flight,
    "in_flight_bytes": lambda s: s.in_flight_bytes,
    "max_in_flight_messages": lambda s: s.max_in_flight,
    "max_in_flight_bytes": lambda s: s.max_in_flight_bytes,
    "progress_age_seconds": lambda s: s.progress_age,
    "awaiting_policy_messages": lambda s: s.awaiting_policy,
    "uncommitted_seconds": lambda s: s.uncommitted,
    "paused": lambda s: s.paused,
    "rate_limit_messages_per_second": lambda s: _per_second(s.rate_limit),
}
STAGE: Table[StageStatistics] = {
    "workers": lambda s: s.concurrency,
    "busy_workers": lambda s: s.busy,
    "waiting_messages": lambda s: s.waiting,
    "parked_messages": lambda s: s.parked,
    "longest_handler_seconds": lambda s: s.longest,
    "hung_handlers": lambda s: s.hung,
}
BATCHER: Table[StageStatistics] = {
    "open_batches": lambda s: s.open_batches,
    "held_messages": lambda s: s.held,
}
PARTITION: Table[PartitionStatistics] = {
    "received_offset": lambda s: s.received,
    "settled_offset": lambda s: s.watermark,
    "committed_offset": lambda s: s.committed,
    "tail_offset": lambda s: s.tail,
    "lag_messages": lambda s: s.lag,
    "lag_seconds": lambda s: s.lag_seconds,
    "oldest_in_flight_seconds": lambda s: s.oldest,
    "uncommitted_messages": lambda s: _uncommitted(s),
}


def refresh(metrics: Metrics, board: Board) -> None:
    """Set all of these metrics; values that are unknown yet are left out."""
    runs = board.statistics()
    stages = [((run.pipeline, stage.name), stage) for run in runs for stage in _by_name(run)]
    batchers = [
        ((run.pipeline, stage.name), stage)
        for run in runs
        for stage in run.stages
        if stage.kind == "batcher"
    ]
    partitions = [
        ((run.pipeline, partition.stream), partition)
        for run in runs
        for partition in run.partitions
    ]
    _fill(metrics, PIPELINE, [((run.pipeline,), run) for run in runs])
    _fill(metrics, STAGE, stages)
    _fill(metrics, BATCHER, batchers)
    _fill(metrics, PARTITION, partitions)
    metrics.replace("stage_seconds", _times(runs))
    metrics.replace("ready", {check.labels: check.ok for check in readiness(board.health())})


def _by_name(run: Statistics) -> Iterable[StageStatistics]:
    """The stages. The processor and a batcher of one name have one label: they count together."""
    found: dict[str, StageStatistics] = {}
    for stage in run.stages:
        same = found.get(stage.name)
        found[stage.name] = stage if same is None else _together(same, stage)
    return found.values()


def _together(one: StageStatistics, other: StageStatistics) -> StageStatistics:
    return replace(
        one,
        concurrency=one.concurrency + other.concurrency,
        busy=one.busy + other.busy,
        waiting=one.waiting + other.waiting,
        parked=one.parked + other.parked,
        longest=max(one.longest, other.longest),
        hung=one.hung + other.hung,
        times={state: seconds + other.times[state] for state, seconds in one.times.items()},
    )


def _fill(metrics: Metrics, table: Table[T], sources: Iterable[tuple[tuple[str, ...], T]]) -> None:
    sources = list(sources)
    for name, get in table.items():
        values = ((labels, get(source)) for labels, source in sources)
        metrics.replace(name, {labels: value for labels, value in values if value is not None})


def _times(runs: Sequence[Statistics]) -> Rows:
    rows: Rows = {}
    for run in runs:
        for state, seconds in run.source.items():
            rows[run.pipeline, "producer", state] = seconds
        for stage in _by_name(run):
            for state, seconds in stage.times.items():
                rows[run.pipeline, stage.name, state] = seconds
    return rows


def _per_second(limit: RateLimit | None) -> float | None:
    return None if limit is None or limit.messages is None else limit.messages / limit.interval


def _uncommitted(partition: PartitionStatistics) -> float | None:
    """The number of offsets, including those of messages that a filter excluded."""
    if partition.watermark is None:
        return 0
    if partition.committed is None:
        return None
    return max(partition.watermark - partition.committed, 0)
