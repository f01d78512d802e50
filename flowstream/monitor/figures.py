"""What the board keeps of one pipeline beside its statistics: counts of events, and a history."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from flowstream.monitor.history import LATENCY_WINDOW, History, Latencies, Sample
from flowstream.pipeline import Pipeline, StageStatistics, Statistics
from flowstream.telemetry import OffsetMoved

MAX_REASONS = 50
"""Reasons of drops that are kept; the rest is counted as OTHER."""
OTHER = "other"


class BatchFigures:
    """The closed batches of one batcher: how many, what closed them, and how long they took."""

    __slots__ = ("count", "messages", "triggers", "waited")

    def __init__(self) -> None:
        self.count: int = 0
        self.messages: int = 0
        self.waited: float = 0.0
        self.triggers: Counter[str] = Counter()


class PipelineFigures:
    """One pipeline. `read` returns its statistics, and is None until the pipeline runs."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.read: Callable[[], Statistics] | None = None
        self.phase_since = now
        self.batches: defaultdict[str, BatchFigures] = defaultdict(BatchFigures)
        self.commits: dict[str, float] = {}
        self.commit_failures = 0
        self.crashes = 0
        self.crashed_at: float | None = None
        self.pipeline: Pipeline | None = None
        self.error = ""
        self.dropped: Counter[tuple[str, bool]] = Counter()
        self.abandoned = 0
        self.latency: float = 0.0
        self.timed: float = 0.0
        self.latencies: Final = Latencies(LATENCY_WINDOW)
        self.truncated = 0
        self.truncated_at: float = 0.0
        self.foreign_commit: tuple[OffsetMoved, float] | None = None
        self.partitions: dict[str, bool] = {}
        self.history: Final = History()

    def drop(self, reason: str, count: int, *, intentional: bool) -> None:
        """Count dropped messages by reason."""
        key = (reason, intentional)
        if key not in self.dropped and len(self.dropped) >= MAX_REASONS:
            key = (OTHER, intentional)
        self.dropped[key] += count

    def given_up(self, statistics: Statistics) -> int:
        """Messages that failed permanently: dead-lettered, or discarded by the policy."""
        discarded = sum(n for (_, intentional), n in self.dropped.items() if not intentional)
        return statistics.settled.get("dead_lettered", 0) + discarded

    def sample(self, statistics: Statistics, now: float) -> None:
        """Keep a sample of the counts."""
        self.latencies.sample()
        sample: Sample = {
            "at": now,
            "received": statistics.received,
            "settled": sum(statistics.settled.values()),
            "failed": statistics.failed_attempts,
            "in_flight": statistics.in_flight,
            "lag": total_lag(statistics) or 0,
            "latency": self.latency,
            "timed": self.timed,
            "p99": self.latencies.last(0.99) or 0.0,
            "given_up": self.given_up(statistics),
            "undecodable": sum(it.attempts for it in statistics.reasons if it.phase == "decode"),
        }
        for state, seconds in statistics.source.items():
            sample[f"producer:{state}"] = seconds
        for stage in statistics.stages:
            key = key_of(stage)
            for state, seconds in stage.times.items():
                sample[f"{key}:{state}"] = seconds
            sample[f"handled:{key}"] = stage.handled
            sample[f"failed:{key}"] = stage.failed
        self.history.add(sample)


def key_of(stage: StageStatistics) -> str:
    """What its counts are called in the history: a batcher may have the name of the processor."""
    return f"{stage.kind} {stage.name}"


def oldest(statistics: Statistics) -> float | None:
    """Age of the oldest unsettled message in seconds; None if it is unknown."""
    ages = [
        partition.lag_seconds
        for partition in statistics.partitions
        if partition.lag_seconds is not None
    ]
    return max(ages, default=None)


def slowest(statistics: Statistics) -> float | None:
    """Seconds until every stream is caught up; None if one of them does not catch up."""
    times = [partition.catch_up for partition in statistics.partitions]
    known = [time for time in times if time is not None]
    return max(known) if known and len(known) == len(times) else None


def total_lag(statistics: Statistics) -> int | None:
    """Messages behind, of all streams; None while the end of no stream is known."""
    known = [partition.lag for partition in statistics.partitions if partition.lag is not None]
    return sum(known) if known else None
