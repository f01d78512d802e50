"""What the live page and the terminal view show of one pipeline, as JSON-ready data. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flowstream.monitor.advice import advice
from flowstream.monitor.condition import (
    FAILED_ATTEMPTS,
    LAGGING_AFTER,
    RECENT,
    Condition,
    Observed,
    Share,
    alarming,
    condition,
)
from flowstream.monitor.figures import (
    PipelineFigures,
    key_of,
    oldest,
    slowest,
    total_lag,
)
from flowstream.monitor.health import Check
from flowstream.monitor.history import History
from flowstream.pipeline import PartitionStatistics, StageStatistics, Statistics


def pipeline_snapshot(
    figures: PipelineFigures,
    statistics: Statistics,
    credits: Mapping[str, int],
    checks: Sequence[Check],
    now: float,
) -> dict[str, Any]:
    """The snapshot of one pipeline; `checks` are the checks of its readiness."""
    history = figures.history
    attempts = {
        key: _recent(history, stage.name, f"handled:{key}", f"failed:{key}")
        for key, stage in ((key_of(stage), stage) for stage in statistics.stages)
    }
    decoding = _recent(history, "decode", "received", "undecodable")
    state = condition(_seen(figures, statistics, [*attempts.values()], checks, now))
    return {
        "name": statistics.pipeline,
        "phase": "paused" if statistics.paused else statistics.phase,
        "phase_seconds": now - figures.phase_since,
        "condition": shown_condition(state),
        "received": statistics.received,
        "settled": sum(statistics.settled.values()),
        "outcomes": outcomes_in_order(statistics.settled),
        "dropped": [
            {"reason": reason, "intentional": intentional, "messages": count}
            for (reason, intentional), count in figures.dropped.most_common()
        ],
        "abandoned": figures.abandoned,
        "in_flight": statistics.in_flight,
        "in_flight_bytes": statistics.in_flight_bytes,
        "max_in_flight": statistics.max_in_flight,
        "max_in_flight_bytes": statistics.max_in_flight_bytes,
        "failed": statistics.failed,
        "failed_attempts": statistics.failed_attempts,
        "reasons": [asdict(reason) for reason in statistics.reasons],
        "retried": statistics.retried,
        "awaiting_policy": statistics.awaiting_policy,
        "crashes": figures.crashes,
        "commit_failures": figures.commit_failures,
        "uncommitted": statistics.uncommitted,
        "truncated": figures.truncated,
        "rate_limit": _limit(statistics.rate_limit),
        "rate": history.rate("settled"),
        "received_rate": history.rate("received"),
        "latency": history.mean_latency(),
        "latency_quantiles": figures.latencies.quantiles(),
        "lag": total_lag(statistics),
        "lag_seconds": oldest(statistics),
        "catch_up": slowest(statistics),
        "source": {
            "name": "producer",
            "states": history.time_shares("producer"),
            "failing": alarming(decoding, FAILED_ATTEMPTS),
        },
        "stages": [_stage(figures, stage, attempts[key_of(stage)]) for stage in statistics.stages],
        "ends": [asdict(end) for end in statistics.ends],
        "streams": [
            _partition(figures, partition, credits, now) for partition in statistics.partitions
        ],
        "elsewhere": _elsewhere(figures, statistics),
        "history": history.curves(),
    }


def _seen(
    figures: PipelineFigures,
    statistics: Statistics,
    attempts: Sequence[Share],
    checks: Sequence[Check],
    now: float,
) -> Observed:
    history = figures.history
    return Observed(
        phase=statistics.phase,
        paused=statistics.paused,
        error=figures.error,
        attempts=attempts,
        given_up=Share(
            statistics.pipeline, history.grown("settled", RECENT), history.grown("given_up", RECENT)
        ),
        crashed=figures.crashed_at is not None and now - figures.crashed_at < RECENT,
        checks=checks,
        slow=_slow(statistics),
        lagging=[
            partition.stream
            for partition in statistics.partitions
            if partition.active and _lags(partition)
        ],
        lag=total_lag(statistics),
        received=history.grown("received", RECENT),
        in_flight=statistics.in_flight,
        elsewhere=sum(not active for active in figures.partitions.values()),
        streams=sum(partition.active for partition in statistics.partitions),
    )


def shown_condition(state: Condition) -> dict[str, Any]:
    """A condition with its advice, as JSON-ready data."""
    shown = {"name": state.name, "level": state.level, "why": state.why}
    return shown | advice(state.topic)


def _recent(history: History, name: str, whole: str, failed: str) -> Share:
    """What was counted as `whole` lately, and how much of it as `failed`."""
    share = history.grown(failed, RECENT)
    total = max(history.grown(whole, RECENT), share)  # without a key no handler gets a message
    return Share(name, total, share)


def _slow(statistics: Statistics) -> str:
    """The handler that has been running for long, while nothing was settled; "" if none has."""
    stage = max(statistics.stages, key=lambda stage: stage.longest, default=None)
    if stage is None or min(stage.longest, statistics.progress_age) < statistics.slow_after:
        return ""
    return (
        f"a call of the handler of {stage.name} has been running for {stage.longest:.0f} s, and no "
        f"message was settled for {statistics.progress_age:.0f} s"
    )


def _lags(partition: PartitionStatistics) -> bool:
    return bool(partition.lag) and (partition.lag_seconds or 0.0) > LAGGING_AFTER


def _elsewhere(figures: PipelineFigures, statistics: Statistics) -> list[str]:
    """Partitions that another process reads and of which nothing else is known."""
    known = {partition.stream for partition in statistics.partitions}
    away = {stream for stream, active in figures.partitions.items() if not active}
    return sorted(away - known)


def _stage(figures: PipelineFigures, stage: StageStatistics, attempts: Share) -> dict[str, Any]:
    batches = figures.batches.get(stage.name) if stage.kind == "batcher" else None
    states = figures.history.time_shares(key_of(stage))
    return {
        "name": stage.name,
        "kind": stage.kind,
        "concurrency": stage.concurrency,
        "active": stage.busy,
        "busy": states.get("busy", 0.0),
        "states": states,
        "failing": alarming(attempts, FAILED_ATTEMPTS),
        "waiting": stage.waiting,
        "parked": stage.parked,
        "handled": stage.handled,
        "failed": stage.failed,
        "retried": stage.retried,
        "failing_share": attempts.failed / attempts.total if attempts.total else 0.0,
        "longest": stage.longest,
        "hung": stage.hung,
        "hot_key": None if stage.hot_key is None else asdict(stage.hot_key),
        "rate": figures.history.rate(f"handled:{key_of(stage)}"),
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


def outcomes_in_order(settled: Mapping[str, int]) -> dict[str, int]:
    """The outcomes that occurred, with their counts: "ok" first, then by name."""
    return {name: settled[name] for name in sorted(settled, key=_rank) if settled[name]}


def _rank(outcome: str) -> tuple[bool, str]:
    return outcome != "ok", outcome
