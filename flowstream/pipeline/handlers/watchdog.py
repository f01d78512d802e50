"""Watches callbacks: ends handlers that take longer than their timeout, reports what is stuck.

It checks every worker a few times per timeout, so a timeout of t seconds takes effect after t to
1.25 t seconds, and nothing is done per message. Callbacks outside of the workers (what a run opens,
on_failed, failure policies, acknowledgers, commits) are reported, and have no timeout: a drain
bounds them. A thread detects what blocks the whole event loop (loopwatch.py).
"""

from __future__ import annotations

from types import FrameType
from typing import Any

import anyio

from flowstream.pipeline.deciders.repeats import Repeats, more
from flowstream.pipeline.handlers.loopwatch import BLOCKED_AFTER
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.signals import Signal
from flowstream.telemetry import HandlerStuck, LoopBlocked
from flowstream.texts import plural


class Watchdog:
    """Watches the callbacks of a run, and the workers of its pools once they exist."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.pools: list[Pool] = []
        self._changed = Signal()
        self._slow = Repeats()
        self._scope = anyio.CancelScope()

    def watch(self, pools: list[Pool]) -> None:
        """Watch the workers of these pools, too."""
        self.pools = pools
        self._changed.notify()

    def stop(self) -> None:
        """Stop watching."""
        self._scope.cancel()

    async def run(self) -> None:
        """Watch until `stop` is called."""
        options = self.state.options
        with self._scope:
            while True:
                times = [pool.timeout for pool in self.pools if pool.timeout is not None]
                await self._changed.wait(min([*times, options.stuck_after, options.slow_after]) / 4)
                self._look()

    def _look(self) -> None:
        now = self.state.clock()
        self.state.threads.look()
        for worker in list(self.state.callbacks):
            self._report(worker, worker.name, worker.name, now)
        for pool in self.pools:
            for worker in list(pool.workers.values()):
                if worker.at_work:
                    self._check(pool, worker, now)

    def _check(self, pool: Pool, worker: WorkerState, now: float) -> None:
        what = worker.callback or f"handler of {pool.name!r}"
        self._report(worker, what, worker.callback or pool.name, now)
        late = pool.timeout is not None and worker.elapsed(now) >= pool.timeout
        if late and worker.scope is not None:
            worker.late = worker.left
            worker.scope.cancel()

    def _report(self, worker: WorkerState, what: str, stage: str, now: float) -> None:
        elapsed, options = worker.elapsed(now), self.state.options
        if elapsed >= options.stuck_after and not worker.reported:
            worker.reported = worker.slow = True
            where, (held, fields) = worker.stack(), _held(worker)
            log.warning(
                "pipeline %r: %s has not returned for %.0f s%s; it is at\n%s",
                self.state.name, what, elapsed, held, where,
                extra={"pipeline": self.state.name, "stage": stage, **fields},
            )  # fmt: skip
            self.state.emit(HandlerStuck(self.state.name, stage, elapsed, where))
        elif elapsed >= options.slow_after and not worker.slow:
            worker.slow = True
            self._report_slow(worker, what, stage, elapsed, now)

    def _report_slow(
        self, worker: WorkerState, what: str, stage: str, elapsed: float, now: float
    ) -> None:
        left_out = self._slow.due(stage, now)
        if left_out is None:
            return
        held, fields = _held(worker)
        log.info(
            "pipeline %r: %s is slow: it has been running for %.0f s%s%s",
            self.state.name, what, elapsed, held, more(left_out),
            extra={"pipeline": self.state.name, "stage": stage, **fields},
        )  # fmt: skip

    # -- the event loop, for loopwatch.py

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def after(self) -> float:
        return min(BLOCKED_AFTER, self.state.options.stuck_after)

    def at_work(self, frames: set[FrameType]) -> tuple[str, str] | None:
        """The stage or callback that one of these frames of the event loop's thread belongs to."""
        workers = [worker for pool in self.pools for worker in list(pool.workers.values())]
        for worker in (*list(self.state.callbacks), *workers):
            if getattr(worker.coroutine, "cr_frame", None) not in frames:
                continue
            if worker.callback or worker in self.state.callbacks:
                return (worker.callback or worker.name,) * 2
            what = "the handler of" if worker.at_work else "what is called by"
            return worker.name, f"{what} {worker.name!r}"
        return None

    def blocked(self, text: str, stage: str, where: str) -> None:
        log.warning(
            "pipeline %r: the event loop has been blocked %s: nothing else runs meanwhile, no "
            "heartbeats either. Put code that computes or waits into a plain def, which runs in a "
            "thread. It is at\n%s", self.state.name, text, where,
            extra={"pipeline": self.state.name, "stage": stage or None},
        )  # fmt: skip

    def was_blocked(self, seconds: float, stage: str, where: str, *, reported: bool) -> None:
        if reported:
            log.info(
                "pipeline %r: the event loop runs again after %.1f s", self.state.name, seconds,
                extra={"pipeline": self.state.name, "stage": stage or None,
                       "seconds": round(seconds, 3)},
            )  # fmt: skip
        self.state.emit(LoopBlocked(self.state.name, stage, seconds, where))

    def was_late(self, text: str) -> None:
        log.info(
            "pipeline %r: the event loop did not run %s, and nothing that blocked it was found: "
            "the machine is busy, the process was stopped, or native code held the GIL",
            self.state.name, text, extra={"pipeline": self.state.name},
        )  # fmt: skip


def _held(worker: WorkerState) -> tuple[str, dict[str, Any]]:
    """The message in the handler, or how many it was given, in words and as fields of a record."""
    message = worker.current
    if message is not None:
        place = {"stream": message.stream, "offset": message.offset}
        return f" with {message.stream}@{message.offset}", place
    if len(worker.part):
        return f" with {plural(len(worker.part), 'message')}", {}
    return "", {}
