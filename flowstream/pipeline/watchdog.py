"""Watches handlers: ends those that take longer than their timeout, reports those that are stuck.

It looks at what every worker has in its hands a few times per timeout, so a timeout of t seconds
comes true after t to 1.25 t; nothing is done per message. A second watch, in a thread of its own,
reports a handler that blocks the whole event loop.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
import traceback

from flowstream.pipeline.core import Core, log
from flowstream.pipeline.stages.pool import Pool
from flowstream.pipeline.stages.slot import Slot
from flowstream.telemetry import HandlerStuck


class Watchdog:
    """Looks after the workers of some pools until its run ends."""

    def __init__(self, core: Core, pools: list[Pool]) -> None:
        self.core = core
        self.pools = pools
        times = [pool.timeout for pool in pools if pool.timeout is not None]
        self.interval = min([*times, core.options.stuck_after]) / 4

    def start(self) -> None:
        self.core.at(self.core.clock() + self.interval, self._look)

    def _look(self) -> None:
        now = self.core.clock()
        for pool in self.pools:
            for slot in list(pool.slots.values()):
                if slot.active:
                    self._check(pool, slot, now)
        self.core.at(now + self.interval, self._look)

    def _check(self, pool: Pool, slot: Slot, now: float) -> None:
        elapsed = slot.elapsed(now)
        if elapsed >= self.core.options.stuck_after and not slot.reported:
            slot.reported = True
            where = slot.stack()
            log.warning(
                "pipeline %r: handler of %r has not come back for %.0f s; it is at\n%s",
                self.core.name, pool.name, elapsed, where,
                extra={"pipeline": self.core.name, "stage": pool.name},
            )  # fmt: skip
            self.core.emit(HandlerStuck(self.core.name, pool.name, elapsed, where))
        if pool.timeout is not None and elapsed >= pool.timeout and slot.scope is not None:
            slot.scope.cancel()


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
