"""The worker threads of plain `def` handlers: a bounded number, including those that hang.

A thread cannot be ended from outside. If its handler is given up, it continues to run and keeps its
place until it returns. When all places are taken by such threads, the run ends.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

import anyio
import anyio.to_thread

from flowstream.pipeline.handlers.frames import frames_of_threads
from flowstream.pipeline.handlers.worker_state import WorkerState

SHOWN = 3
"""How many different places where threads hang the error shows."""
FRAMES = 8


class Call:
    """One call in a thread, how long it took there, and whether its caller still waits for it."""

    __slots__ = ("abandoned", "done", "name", "seconds", "thread", "worker")

    def __init__(self, name: str, worker: WorkerState) -> None:
        self.name: str = name
        self.worker: WorkerState = worker
        self.thread: int | None = None
        self.abandoned: bool = False
        self.done: bool = False
        self.seconds: float = 0.0

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """In the thread: call the function, unless the call was abandoned before it began."""
        self.thread = threading.get_ident()
        begun = time.perf_counter()
        try:
            if self.abandoned:
                return None
            self.worker.thread = self.thread
            return function(*args)
        finally:
            self.seconds = time.perf_counter() - begun
            self.done = True

    @property
    def hangs(self) -> bool:
        return self.thread is not None and not self.done


_counted: WeakSet[anyio.CapacityLimiter] = WeakSet()


def thread_limiter() -> anyio.CapacityLimiter:
    """A limiter of any number of threads. Virtual time waits for threads that borrow from it."""
    limiter = anyio.CapacityLimiter(math.inf)
    _counted.add(limiter)
    return limiter


def threads_run() -> bool:
    """Whether a thread of a `thread_limiter` runs."""
    return any(limiter.borrowed_tokens for limiter in tuple(_counted))


class Threads:
    """At most `most` threads. `exhausted` is called, once, when all of them hang.

    Threads in use borrow from `limiter`; threads that hang make it smaller until they return.
    """

    def __init__(self, most: int, exhausted: Callable[[Threads], None]) -> None:
        self.most = most
        self.limiter: Final = anyio.CapacityLimiter(most)
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self._exhausted = exhausted
        self._hung: list[Call] = []
        self._reported = False
        self._freed = anyio.Event()

    async def run(
        self, name: str, worker: WorkerState, function: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a function that never raises in a thread. A cancellation does not stop the thread."""
        call, asked = Call(name, worker), time.perf_counter()
        await self._admit(call)
        try:
            answer = await anyio.to_thread.run_sync(
                call.run, function, *args, limiter=self._unlimited, abandon_on_cancel=True
            )
            worker.waited += time.perf_counter() - asked - call.seconds
            return answer
        finally:
            worker.thread = None
            call.abandoned = True
            self.limiter.release_on_behalf_of(call)
            if call.hangs:
                self._hung.append(call)
                self.look()

    async def _admit(self, call: Call) -> None:
        """Wait for a place. This time does not count towards the timeout of the handler."""
        call.worker.queued = True
        try:
            await self._acquire(call)
            while self.full:
                self.limiter.release_on_behalf_of(call)
                await self._freed.wait()
                await self._acquire(call)
        finally:
            call.worker.queued = False
        call.worker.since = anyio.current_time()

    async def _acquire(self, call: Call) -> None:
        try:
            self.limiter.acquire_on_behalf_of_nowait(call)
        except anyio.WouldBlock:
            await self.limiter.acquire_on_behalf_of(call)

    @property
    def full(self) -> bool:
        """Whether all of them hang."""
        return len(self._hung) >= self.most

    @property
    def hung(self) -> tuple[str, ...]:
        """The names of the handlers whose threads were given up and have not returned."""
        return tuple(call.name for call in self._hung if call.hangs)

    def look(self) -> None:
        """Count the threads that have returned. Called regularly on the event loop."""
        self._hung = [call for call in self._hung if call.hangs]
        self.limiter.total_tokens = max(self.most - len(self._hung), 1)
        if not self.full:
            self._freed.set()
            self._freed = anyio.Event()
        elif not self._reported:
            self._reported = True
            self._exhausted(self)

    def describe(self) -> str:
        """In which handlers threads hang, how many, and at which lines."""
        handlers = Counter(self.hung)
        text = ", ".join(f"{count} of {name!r}" for name, count in handlers.items())
        frames = frames_of_threads()
        places = Counter(
            "".join(traceback.format_stack(frames[call.thread])[-FRAMES:])
            for call in self._hung
            if call.thread in frames
        )
        shown = [f"{count} at\n{place}" for place, count in places.most_common(SHOWN)]
        return "\n".join([text, *shown])
