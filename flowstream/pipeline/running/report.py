"""Reads a run into the plain values of `statistics`."""

from __future__ import annotations

from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.running.run import Run
from flowstream.pipeline.running.statistics import StageStatistics, Statistics
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.processor import Processors


def snapshot(run: Run) -> Statistics:
    """The run as it is now."""
    state, window = run.state, run.state.window
    now, since = state.clock(), run.ack_tracker.uncommitted_since
    return Statistics(
        pipeline=state.name,
        phase=state.phase,
        paused=run.intake.paused,
        uptime=now - state.started,
        received=state.received,
        settled=dict(state.counts),
        failed=state.failed,
        retried=state.retried,
        in_flight=window.messages,
        in_flight_bytes=window.bytes,
        max_in_flight=window.max_messages,
        max_in_flight_bytes=window.max_bytes,
        highest_in_flight=window.highest,
        highest_in_flight_bytes=window.highest_bytes,
        rate_limit=run.limiter.limit,
        disposing=run.failure_handler.waiting,
        restarts=state.restarts.total,
        hung=len(state.threads.hung),
        progress_age=now - state.progress,
        uncommitted=0.0 if since is None else now - since,
        source=run.intake.times.until(now),
        stuck_after=state.options.stuck_after,
        batch_timeout=max((b.batching.timeout for b in run.batchers.values()), default=0.0),
        commit_interval=state.options.commit_interval,
        stages=tuple(_stage(pool, now) for pool in run.pools),
        partitions=run.lag.statistics(),
        failed_attempts=state.failures.attempts,
        reasons=state.failures.reasons,
    )


def _stage(pool: Pool, now: float) -> StageStatistics:
    assert isinstance(pool, (Processors, Batcher))
    active = [worker for worker in pool.workers.values() if worker.active]
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
        longest=max((worker.elapsed(now) for worker in active), default=0.0),
        hung=pool.hung,
        times=pool.times(now),
    )
