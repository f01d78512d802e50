"""The drain as one ordered list: the steps of a stop, in this order, within its deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from flowstream.errors import CommitNotVerified, DrainTimeout, StageFailed
from flowstream.pipeline.handlers.calls import as_exception, passes
from flowstream.pipeline.running.assembly import Stages
from flowstream.pipeline.stages.committer import Committer
from flowstream.pipeline.stages.source import COMMIT_GRACE
from flowstream.pipeline.state import story
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.texts import plural

LOOK_GRACE = 1.0
"""Seconds of COMMIT_GRACE for a check of the stored offsets."""


class Drain:
    """Finishes what is in flight, and commits. `step` is the current step."""

    def __init__(self, state: RunState, committer: Committer) -> None:
        self.step: str = ""
        self.timed_out: bool = False
        self._state = state
        self._committer = committer

    async def run(self, stages: Stages, stopped_by: str) -> None:
        """Drain, then commit; record DrainTimeout if the time runs out.

        The producer has ended before. The time is limited once a stop is requested; the end of a
        finite source alone does not limit it.
        """
        state, scope = self._state, self._state.draining
        state.enter("draining")
        if state.stopping:
            state.limit_drain()
        self._log_begin(story.why_draining(state, stopped_by))
        with scope:
            for step, action in self._steps(stages):
                self.step = step
                began = state.clock()
                await action()
                self._log_step(state.clock() - began)
        if scope.cancelled_caught or (state.unsettled and state.error is None):
            self.timed_out = True
            error = self._timeout(cut_off=scope.cancelled_caught)
            log.error(str(error), extra={"pipeline": state.name})
            state.error = state.error or error
        await self.commit()

    def _steps(self, stages: Stages) -> tuple[tuple[str, Callable[[], Awaitable[None]]], ...]:
        """The steps after "stop taking"; "commit", "verify" and "close" have their own time."""
        state, processors, batchers = self._state, stages.processors, stages.batchers.values()

        async def finish_slices() -> None:
            await state.changed.until(lambda: processors is None or processors.idle)

        async def flush_batches() -> None:
            for batcher in batchers:
                batcher.drain()

        async def finish_batches() -> None:
            await state.changed.until(lambda: all(batcher.idle for batcher in batchers))

        async def settle() -> None:
            handler = stages.failure_handler
            await state.changed.until(
                lambda: handler.idle and not (state.window.messages and state.busy)
            )
            if left := state.window.messages:
                raise StageFailed(
                    f"pipeline {state.name!r}: {plural(left, 'message')} "
                    f"{'was' if left == 1 else 'were'} left by a stage that broke, and will be "
                    "delivered again"
                )

        return (
            ("finish slices", finish_slices),
            ("flush batches", flush_batches),
            ("finish batches", finish_batches),
            ("settle", settle),
        )

    async def commit(self) -> None:
        """Commit the watermarks and verify them, within COMMIT_GRACE in any case."""
        state = self._state
        self.step = "commit"
        began = state.clock()
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(COMMIT_GRACE):
                with anyio.move_on_after(
                    LOOK_GRACE
                ):  # before offsets that others stored are overwritten
                    await self._committer.watch.look()
                await self._committer.commit()
                verified = await self._committer.verify()
            self._log_committed(verified, state.clock() - began)
        except TimeoutError:
            error: Exception = CommitNotVerified(
                f"pipeline {state.name!r}: the offsets could not be stored within "
                f"{COMMIT_GRACE:g} s"
            )
            state.error = state.error or error
        except BaseException as raised:
            if passes(raised):
                raise
            state.error = state.error or as_exception("offsets could not be verified", raised)

    def _timeout(self, *, cut_off: bool) -> DrainTimeout:
        """The error for messages cut off at the deadline, or given up since they retry later."""
        state = self._state
        if cut_off:
            busy = ", ".join(state.busy_handlers()) or "nothing"
            why = f"at {self.step!r}, in handlers: {busy}"
        else:
            why = "the next attempt of failed messages is due later"
        return DrainTimeout(
            f"pipeline {state.name!r} did not drain within "
            f"{state.options.drain_timeout:g} s, its drain_timeout ({why}); {state.unsettled} "
            "messages stay unsettled, and the next run gets them again"
        )

    # -- what the log says

    def _log_begin(self, why: str) -> None:
        state = self._state
        in_flight = state.window.messages
        most = "without a limit of time"
        if state.stopping:
            most = f"{state.options.drain_timeout:g} s at most"
        log.info(
            "pipeline %r drains, %s: %s messages in flight, %s", state.name, why,
            f"{in_flight:,}", most, extra={"pipeline": state.name, "in_flight": in_flight},
        )  # fmt: skip

    def _log_step(self, seconds: float) -> None:
        state = self._state
        in_flight = state.window.messages
        log.info(
            "pipeline %r drain: %s took %.2f s, %s messages are in flight", state.name, self.step,
            seconds, f"{in_flight:,}",
            extra={"pipeline": state.name, "step": self.step, "seconds": round(seconds, 3),
                   "in_flight": in_flight},
        )  # fmt: skip

    def _log_committed(self, verified: dict[str, int], seconds: float) -> None:
        state = self._state
        done = "no offset is new, so nothing is committed"
        if verified:
            done = f"committed and verified {story.places(verified)}"
        log.info(
            "pipeline %r drain: %s (%.2f s)", state.name, done, seconds,
            extra={"pipeline": state.name, "step": "commit", "seconds": round(seconds, 3),
                   "streams": len(verified)},
        )  # fmt: skip
