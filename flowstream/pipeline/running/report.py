"""Makes a snapshot of a run: the plain values of `statistics`."""

from __future__ import annotations

from dataclasses import replace

from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.running.run import Run
from flowstream.pipeline.running.statistics import StageStatistics, Statistics


def snapshot(run: Run) -> Statistics:
    """The run as it is now. Before its stages are built, the snapshot has no stages."""
    state, window, stages = run.state, run.state.window, run.stages
    now, since = state.now, run.ack_tracker.uncommitted_since
    processors = None if stages is None else stages.processors
    batchers = [] if stages is None else [*stages.batchers.values()]
    figures = [] if processors is None else [_stage(processors, now, processors.waiting, 0)]
    figures += [
        replace(
            _stage(batcher.processors, now, batcher.waiting, batcher.batching.open),
            held=batcher.held,
            waits_for=tuple(batcher.waits_for),
        )
        for batcher in batchers
    ]
    return Statistics(
        pipeline=state.name,
        phase=state.phase,
        paused=stages is not None and stages.source.paused,
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
        awaiting_policy=0 if stages is None else stages.failure_handler.waiting,
        restarts=state.restarts.total,
        hung=len(state.threads.hung),
        progress_age=now - state.progress,
        uncommitted=0.0 if since is None else now - since,
        source={} if stages is None else stages.source.times.until(now),
        slow_after=state.options.slow_after,
        stuck_after=state.options.stuck_after,
        batch_timeout=max((batcher.batching.longest for batcher in batchers), default=0.0),
        commit_interval=state.options.commit_interval,
        stages=tuple(figures),
        partitions=() if run.lag is None else run.lag.statistics(),
        failed_attempts=state.failures.attempts,
        reasons=state.failures.reasons,
        ends=run.ends,
        held=0 if stages is None else stages.failure_handler.held,
    )


def _stage(pool: Pool, now: float, waiting: int, open_batches: int) -> StageStatistics:
    active = [worker for worker in pool.workers.values() if worker.active]
    return StageStatistics(
        name=pool.name,
        kind=pool.kind,
        concurrency=pool.concurrency,
        busy=len(active),
        waiting=waiting,
        parked=pool.parked,
        open_batches=open_batches,
        handled=pool.handled,
        failed=pool.failed,
        retried=pool.retried,
        seconds=pool.seconds,
        longest=max((worker.elapsed(now) for worker in active), default=0.0),
        hung=pool.hung,
        hot_key=pool.hot_key,
        times=pool.times(now),
    )
