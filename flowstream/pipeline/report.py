"""Reads a run into the plain values of `statistics`."""

from __future__ import annotations

from flowstream.pipeline.run import Run
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.pool import Pool
from flowstream.pipeline.stages.processor import Processors
from flowstream.pipeline.statistics import StageStatistics, Statistics


def snapshot(run: Run) -> Statistics:
    """The run as it is now."""
    core, window = run.core, run.core.window
    now, since = core.clock(), run.settlement.uncommitted_since
    return Statistics(
        pipeline=core.name,
        phase=core.phase,
        paused=run.feed.paused,
        uptime=now - core.started,
        received=core.received,
        settled=dict(core.counts),
        failed=core.failed,
        retried=core.retried,
        in_flight=window.messages,
        in_flight_bytes=window.bytes,
        max_in_flight=window.max_messages,
        max_in_flight_bytes=window.max_bytes,
        highest_in_flight=window.highest,
        highest_in_flight_bytes=window.highest_bytes,
        rate_limit=run.limiter.limit,
        disposing=run.disposal.waiting,
        restarts=core.restarts.total,
        hung=len(core.threads.hung),
        progress_age=now - core.progress,
        uncommitted=0.0 if since is None else now - since,
        source=run.feed.times.until(now),
        stuck_after=core.options.stuck_after,
        batch_timeout=max((b.batching.timeout for b in run.batchers.values()), default=0.0),
        commit_interval=core.options.commit_interval,
        stages=tuple(_stage(pool, now) for pool in run.pools),
        lanes=run.lag.statistics(),
        failed_attempts=core.failures.attempts,
        reasons=core.failures.reasons,
    )


def _stage(pool: Pool, now: float) -> StageStatistics:
    assert isinstance(pool, (Processors, Batcher))
    active = [slot for slot in pool.slots.values() if slot.active]
    return StageStatistics(
        name=pool.name,
        kind=pool.kind,
        concurrency=pool.concurrency,
        busy=len(active),
        waiting=pool.waiting,
        parked=pool.parked,
        open_batches=pool.batching.open if isinstance(pool, Batcher) else 0,
        handled=pool.handled,
        failed=pool.failed,
        retried=pool.retried,
        seconds=pool.seconds,
        longest=max((slot.elapsed(now) for slot in active), default=0.0),
        hung=pool.hung,
        times=pool.times(now),
    )
