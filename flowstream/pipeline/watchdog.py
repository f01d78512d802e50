"""Watches callbacks: ends handlers that take longer than their timeout, reports what is stuck.

It looks at what every worker has in its hands a few times per timeout, so a timeout of t seconds
comes true after t to 1.25 t; nothing is done per message. Callbacks outside of the workers (what a
run opens, on_failed, failure policies, acknowledgers, commits) are reported, and have no timeout:
a drain bounds them. A second watch, in a thread of its own, reports what blocks the whole event
loop: a handler, a partition_by, a batch size function, an observer.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
import traceback

import anyio

from flowstream.pipeline.core import Core, Signal, log
from flowstream.pipeline.stages.pool import Pool
from flowstream.pipeline.stages.slot import Slot
from flowstream.telemetry import HandlerStuck


class Watchdog:
    """Looks after the callbacks of a run, and the workers of its pools once there are some."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.pools: list[Pool] = []
        self._changed = Signal()
        self._scope = anyio.CancelScope()

    def watch(self, pools: list[Pool]) -> None:
        """From now on look after the workers of these, too."""
        self.pools = pools
        self._changed.notify()

    def stop(self) -> None:
        """Look no more."""
        self._scope.cancel()

    async def run(self, loop: LoopWatch) -> None:
        """Look until stopped, and tell `loop` that the event loop runs."""
        with self._scope:
            while True:
                times = [pool.timeout for pool in self.pools if pool.timeout is not None]
                await self._changed.wait(min([*times, self.core.options.stuck_after]) / 4)
                loop.beat()
                self._look()

    def _look(self) -> None:
        now = self.core.clock()
        self.core.threads.look()
        for slot in list(self.core.callbacks):
            self._report(slot, slot.name, slot.name, now)
        for pool in self.pools:
            for slot in list(pool.slots.values()):
                if slot.scope is not None:
                    self._check(pool, slot, now)

    def _check(self, pool: Pool, slot: Slot, now: float) -> None:
        what = slot.callback or f"handler of {pool.name!r}"
        self._report(slot, what, slot.callback or pool.name, now)
        if pool.timeout is not None and slot.elapsed(now) >= pool.timeout:
            assert slot.scope is not None
            slot.late = slot.current
            slot.scope.cancel()

    def _report(self, slot: Slot, what: str, stage: str, now: float) -> None:
        elapsed = slot.elapsed(now)
        if elapsed >= self.core.options.stuck_after and not slot.reported:
            slot.reported = True
            where = slot.stack()
            log.warning(
                "pipeline %r: %s has not come back for %.0f s; it is at\n%s",
                self.core.name, what, elapsed, where,
                extra={"pipeline": self.core.name, "stage": stage},
            )  # fmt: skip
            self.core.emit(HandlerStuck(self.core.name, stage, elapsed, where))


class LoopWatch:
    """Reports when the event loop itself has not run for `after` seconds, with where it is.

    Its thread is a bare one: starting or ending it must not wait on the event loop.
    """

    def __init__(self, name: str, after: float) -> None:
        self.name = name
        self.after = after
        self._loop_thread = threading.get_ident()
        self._seen = time.monotonic()
        self._reported = False
        self._running = _thread.allocate_lock()

    def __enter__(self) -> LoopWatch:
        self._running.acquire(blocking=False)
        _thread.start_new_thread(self._watch, ())
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.release()

    def beat(self) -> None:
        """The loop runs; called every now and then on it."""
        self._seen = time.monotonic()
        self._reported = False

    def _watch(self) -> None:
        while not self._running.acquire(timeout=self.after / 4):
            blocked = time.monotonic() - self._seen
            if blocked >= self.after and not self._reported:
                self._reported = True
                frame = sys._current_frames().get(self._loop_thread)
                where = "".join(traceback.format_stack(frame)[-12:]) if frame else "nowhere\n"
                log.warning(
                    "pipeline %r: the event loop has been blocked for %.0f s, so heartbeats stop; "
                    "a handler that computes should be a plain def. It is at\n%s",
                    self.name, blocked, where,
                    extra={"pipeline": self.name},
                )  # fmt: skip
