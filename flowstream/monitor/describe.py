"""A pipeline's figures -> what is shown of it, as JSON-ready data. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from flowstream.monitor.condition import (
    ATTEMPTS,
    LAGGING_AFTER,
    RECENT,
    Condition,
    Seen,
    Share,
    condition,
    worth_waking,
)
from flowstream.monitor.figures import (
    LATENCY_WINDOW,
    PipelineFigures,
    Sample,
    oldest,
    slowest,
    total_lag,
)
from flowstream.monitor.health import Check
from flowstream.monitor.runbooks import advice
from flowstream.pipeline import PartitionStatistics, StageStatistics, Statistics

WINDOW = 5
"""Samples a rate is taken over."""


def describe(
    figures: PipelineFigures,
    statistics: Statistics,
    credits: Mapping[str, int],
    checks: Sequence[Check],
    now: float,
) -> dict[str, Any]:
    """One pipeline; `checks` are those of its readiness."""
    history = figures.history
    attempts = {stage.name: _attempts(history, stage.name) for stage in statistics.stages}
    state = condition(_seen(figures, statistics, [*attempts.values()], checks, now))
    return {
        "name": statistics.pipeline,
        "phase": "paused" if statistics.paused else statistics.phase,
        "phase_seconds": now - figures.phase_since,
        "condition": _condition(state),
        "received": statistics.received,
        "settled": sum(statistics.settled.values()),
        "outcomes": in_order(statistics.settled),
        "dropped": [
            {"reason": reason, "intentional": intentional, "messages": count}
            for (reason, intentional), count in figures.dropped.most_common()
        ],
        "held": figures.held,
        "in_flight": statistics.in_flight,
        "in_flight_bytes": statistics.in_flight_bytes,
        "max_in_flight": statistics.max_in_flight,
        "max_in_flight_bytes": statistics.max_in_flight_bytes,
        "failed": statistics.failed,
        "failed_attempts": statistics.failed_attempts,
        "reasons": [asdict(reason) for reason in statistics.reasons],
        "retried": statistics.retried,
        "disposing": statistics.disposing,
        "crashes": figures.crashes,
        "commit_failures": figures.commit_failures,
        "uncommitted": statistics.uncommitted,
        "truncated": figures.lost,
        "rate_limit": _limit(statistics.rate_limit),
        "rate": rate(history, "settled"),
        "received_rate": rate(history, "received"),
        "latency": _mean_latency(history),
        "latency_quantiles": figures.latencies.quantiles(),
        "lag": total_lag(statistics),
        "lag_seconds": oldest(statistics),
        "catch_up": slowest(statistics),
        "source": {
            "name": "producer",
            "states": shares(history, "producer"),
            "failing": worth_waking(_undecodable(history), ATTEMPTS),
        },
        "stages": [_stage(figures, stage, attempts[stage.name]) for stage in statistics.stages],
        "streams": [
            _partition(figures, partition, credits, now) for partition in statistics.partitions
        ],
        "elsewhere": _elsewhere(figures, statistics),
        "history": curves(history),
    }


def _seen(
    figures: PipelineFigures,
    statistics: Statistics,
    attempts: Sequence[Share],
    checks: Sequence[Check],
    now: float,
) -> Seen:
    history = figures.history
    return Seen(
        phase=statistics.phase,
        paused=statistics.paused,
        error=figures.error,
        attempts=attempts,
        given_up=Share(statistics.pipeline, grown(history, "settled"), grown(history, "given_up")),
        crashed=figures.crashed_at is not None and now - figures.crashed_at < RECENT,
        checks=checks,
        lagging=[
            partition.stream
            for partition in statistics.partitions
            if partition.active and _lags(partition)
        ],
        lag=total_lag(statistics),
        received=grown(history, "received"),
        in_flight=statistics.in_flight,
        elsewhere=sum(not active for active in figures.partitions.values()),
        streams=sum(partition.active for partition in statistics.partitions),
    )


def _condition(state: Condition) -> dict[str, Any]:
    shown = {"name": state.name, "level": state.level, "why": state.why}
    return shown | advice(state.about)


def _attempts(history: deque[Sample], stage: str) -> Share:
    """What a stage tried lately, and what of it failed."""
    return Share(stage, grown(history, f"handled:{stage}"), grown(history, f"failed:{stage}"))


def _undecodable(history: deque[Sample]) -> Share:
    """What was received lately, and what of it no handler could be given."""
    return Share("decode", grown(history, "received"), grown(history, "undecodable"))


def _lags(partition: PartitionStatistics) -> bool:
    return bool(partition.lag) and (partition.lag_seconds or 0.0) > LAGGING_AFTER


def _elsewhere(figures: PipelineFigures, statistics: Statistics) -> list[str]:
    """Partitions that another process has, and of which nothing else is known."""
    known = {partition.stream for partition in statistics.partitions}
    away = {stream for stream, active in figures.partitions.items() if not active}
    return sorted(away - known)


def _stage(figures: PipelineFigures, stage: StageStatistics, attempts: Share) -> dict[str, Any]:
    batches = figures.batches.get(stage.name)
    states = shares(figures.history, stage.name)
    return {
        "name": stage.name,
        "kind": stage.kind,
        "concurrency": stage.concurrency,
        "active": stage.busy,
        "busy": states.get("busy", 0.0),
        "states": states,
        "failing": worth_waking(attempts, ATTEMPTS),
        "waiting": stage.waiting,
        "parked": stage.parked,
        "handled": stage.handled,
        "failed": stage.failed,
        "retried": stage.retried,
        "failing_share": attempts.failed / attempts.total if attempts.total else 0.0,
        "longest": stage.longest,
        "hung": stage.hung,
        "rate": rate(figures.history, f"handled:{stage.name}"),
        "open_batches": stage.open_batches,
        "batches": batches.count if batches else 0,
        "mean_batch": batches.messages / batches.count if batches else None,
        "mean_wait": batches.waited / batches.count if batches else None,
        "triggers": dict(batches.triggers) if batches else {},
    }


def _partition(
    figures: PipelineFigures, partition: PartitionStatistics, credits: Mapping[str, int], now: float
) -> dict[str, Any]:
    committed_at = figures.commits.get(partition.stream)
    return {
        "stream": partition.stream,
        "received": partition.received,
        "settled": partition.watermark,
        "committed": partition.committed,
        "commit_age": None if committed_at is None else now - committed_at,
        "tail": partition.tail,
        "lag": partition.lag,
        "lag_seconds": partition.lag_seconds,
        "catch_up": partition.catch_up,
        "oldest": partition.oldest,
        "active": partition.active,
        "lagging": _lags(partition),
        "credits": credits.get(partition.stream),
    }


def _limit(limit: Any) -> dict[str, Any] | None:
    if limit is None:
        return None
    return {"messages": limit.messages, "bytes": limit.bytes, "interval": limit.interval}


def in_order(settled: Mapping[str, int]) -> dict[str, int]:
    """Outcomes that occurred, the good one first."""
    return {name: settled[name] for name in sorted(settled, key=_rank) if settled[name]}


def _rank(outcome: str) -> tuple[bool, str]:
    return outcome != "ok", outcome


def rate(history: deque[Sample], key: str, window: int = WINDOW) -> float:
    """How fast a count grew per second over the last `window` samples."""
    if len(history) < 2:
        return 0.0
    first, last = _ends(history, window)
    span = last["at"] - first["at"]
    return (last.get(key, 0.0) - first.get(key, 0.0)) / span if span > 0 else 0.0


def shares(history: deque[Sample], name: str, window: int = WINDOW) -> dict[str, float]:
    """The share of its time that a stage spent in each state lately; they add up to 1."""
    if len(history) < 2:
        return {}
    first, last = _ends(history, window)
    prefix = f"{name}:"
    spent = {
        key.removeprefix(prefix): max(value - first.get(key, 0.0), 0.0)
        for key, value in last.items()
        if key.startswith(prefix)
    }
    whole = sum(spent.values())
    return {state: seconds / whole for state, seconds in spent.items()} if whole > 0 else {}


def grown(history: deque[Sample], key: str, window: int = RECENT) -> float:
    """How much a count grew within the last `window` samples."""
    if len(history) < 2:
        return 0.0
    first, last = _ends(history, window)
    return max(last.get(key, 0.0) - first.get(key, 0.0), 0.0)


def _ends(history: deque[Sample], window: int) -> tuple[Sample, Sample]:
    return history[max(0, len(history) - 1 - window)], history[-1]


def _mean_latency(history: deque[Sample], window: int = LATENCY_WINDOW) -> float | None:
    """Seconds from publishing to settled, of what was settled lately."""
    if len(history) < 2:
        return None
    return _latency(*_ends(history, window))


def _latency(before: Sample, after: Sample) -> float | None:
    count = after["timed"] - before["timed"]
    return (after["latency"] - before["latency"]) / count if count else None


def curves(history: deque[Sample]) -> dict[str, list[float]]:
    """What the small charts draw: one point per sample."""
    points = list(history)
    steps = list(pairwise(points))
    return {
        "at": [point["at"] for point in points[1:]],
        "rate": [_per_second(before, after, "settled") for before, after in steps],
        "failed": [_per_second(before, after, "failed") for before, after in steps],
        "latency": [_latency(before, after) or 0.0 for before, after in steps],
        "p99": [point["p99"] for point in points[1:]],
        "lag": [point["lag"] for point in points[1:]],
        "in_flight": [point["in_flight"] for point in points[1:]],
    }


def _per_second(before: Sample, after: Sample, key: str) -> float:
    span = after["at"] - before["at"]
    return (after[key] - before[key]) / span if span > 0 else 0.0
