"""The drain, as one ordered list: what a stop does, in this order, inside its deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from flowstream.errors import CommitNotVerified, DrainTimeout, StageFailed
from flowstream.pipeline.handlers.calls import as_exception, passes
from flowstream.pipeline.stages.source import COMMIT_GRACE
from flowstream.pipeline.state import story
from flowstream.pipeline.state.run_state import log
from flowstream.texts import plural

if TYPE_CHECKING:
    from flowstream.pipeline.running.run import Run

LOOK_GRACE = 1.0
"""Seconds of COMMIT_GRACE for a look at what is stored."""

Step = Callable[["Run"], Awaitable[None]]


async def finish_slices(run: Run) -> None:
    await run.state.changed.until(lambda: run.processors.idle)


async def flush_batches(run: Run) -> None:
    for batcher in run.batchers.values():
        batcher.drain()


async def finish_batches(run: Run) -> None:
    await run.state.changed.until(lambda: all(b.idle for b in run.batchers.values()))


async def settle(run: Run) -> None:
    await run.state.changed.until(
        lambda: run.failure_handler.idle and not (run.in_flight and run.busy)
    )
    if run.in_flight:
        raise StageFailed(
            f"pipeline {run.state.name!r}: {plural(run.in_flight, 'message')} "
            f"{'was' if run.in_flight == 1 else 'were'} left by a stage that broke, and will be "
            "delivered again"
        )


STEPS: tuple[tuple[str, Step], ...] = (
    ("finish slices", finish_slices),
    ("flush batches", flush_batches),
    ("finish batches", finish_batches),
    ("settle", settle),
)
"""After "stop taking"; "commit", "verify" and "close" follow, with a grace of their own."""


async def drain(run: Run) -> None:
    """Bring what is in flight to its end, then commit; records DrainTimeout when time runs out.

    The producer takes nothing in any more when this is called. Time is limited once a stop was
    asked for; where a finite source has simply ended, there is no hurry.
    """
    state, scope = run.state, run.draining
    state.enter("draining")
    if run.stopping:
        limit(run)
    _say_begin(run)
    with scope:
        for step, action in STEPS:
            run.drain_step = step
            began = state.clock()
            await action(run)
            _say_step(run, step, state.clock() - began)
    if scope.cancelled_caught or (run.unsettled and state.error is None):
        error = _timed_out(run)
        log.error("%s", error, extra={"pipeline": state.name})
        state.error = state.error or error
        run.reason = "drain timeout"
    await commit(run)


def _say_begin(run: Run) -> None:
    state = run.state
    most = (
        f"{state.options.drain_timeout:g} s at most" if run.stopping else "without a limit of time"
    )
    log.info(
        "pipeline %r drains, %s: %s messages in flight, %s", state.name, story.why_draining(run),
        f"{run.in_flight:,}", most, extra={"pipeline": state.name, "in_flight": run.in_flight},
    )  # fmt: skip


def _say_step(run: Run, step: str, seconds: float) -> None:
    state = run.state
    log.info(
        "pipeline %r drain: %s took %.2f s, %s messages are in flight", state.name, step, seconds,
        f"{run.in_flight:,}",
        extra={"pipeline": state.name, "step": step, "seconds": round(seconds, 3),
               "in_flight": run.in_flight},
    )  # fmt: skip


def _say_committed(run: Run, verified: dict[str, int], seconds: float) -> None:
    state = run.state
    done = "no offset is new, so nothing is committed"
    if verified:
        done = f"committed and verified {story.places(verified)}"
    log.info(
        "pipeline %r drain: %s (%.2f s)", state.name, done, seconds,
        extra={"pipeline": state.name, "step": "commit", "seconds": round(seconds, 3),
               "streams": len(verified)},
    )  # fmt: skip


def _timed_out(run: Run) -> DrainTimeout:
    """What was cut off at the deadline, or given up before it: retries that are due later."""
    if run.draining.cancelled_caught:
        busy = ", ".join(run.busy_handlers()) or "nothing"
        why = f"at {run.drain_step!r}, in handlers: {busy}"
    else:
        why = "the next attempt of what failed is due later than that"
    return DrainTimeout(
        f"pipeline {run.state.name!r} did not drain within "
        f"{run.state.options.drain_timeout:g} s, its drain_timeout ({why}); {run.unsettled} "
        "messages stay unsettled and are replayed"
    )


def limit(run: Run) -> None:
    """From now on the drain has drain_timeout seconds."""
    run.draining.deadline = run.state.clock() + run.state.options.drain_timeout
    run.state.draining_until(run.draining.deadline)


async def commit(run: Run) -> None:
    """Commit what the watermarks allow and verify it, within COMMIT_GRACE whatever happens."""
    run.drain_step = "commit"
    began = run.state.clock()
    try:
        with anyio.CancelScope(shield=True), anyio.fail_after(COMMIT_GRACE):
            with anyio.move_on_after(LOOK_GRACE):  # before what others stored is overwritten
                await run.offset_watch.look()
            await run.committer.commit()
            verified = await run.committer.verify()
        _say_committed(run, verified, run.state.clock() - began)
    except TimeoutError:
        error: Exception = CommitNotVerified(
            f"pipeline {run.state.name!r}: the offsets could not be stored within "
            f"{COMMIT_GRACE:g} s"
        )
        run.state.error = run.state.error or error
    except BaseException as raised:
        if passes(raised):
            raise
        run.state.error = run.state.error or as_exception("offsets could not be verified", raised)
