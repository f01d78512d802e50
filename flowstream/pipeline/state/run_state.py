"""What the stages of one run share: the window, the timers, the counters, and how it halts."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from flowstream.errors import ThreadsExhausted
from flowstream.pipeline.deciders.discards import Place
from flowstream.pipeline.deciders.restarts import Restarts
from flowstream.pipeline.deciders.timer_queue import TimerQueue
from flowstream.pipeline.deciders.window import Window
from flowstream.pipeline.handlers.calls import as_exception, let_through
from flowstream.pipeline.handlers.threads import Threads
from flowstream.pipeline.handlers.worker_state import WorkerState, current_worker
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import PipelineOptions
from flowstream.pipeline.state.failure_log import Failures
from flowstream.pipeline.state.halting import halted
from flowstream.telemetry import (
    Event,
    Halted,
    Outcome,
    PhaseChanged,
    StageCrashed,
    Telemetry,
    Warned,
)
from flowstream.texts import describe, is_a, printable, text_of, type_name

log = logging.getLogger("flowstream.pipeline")

T = TypeVar("T")
_NO_SPAN: AbstractContextManager[Outcome] = nullcontext(lambda messages, error: None)


class Signal:
    """Wakes whoever waits for a condition; costs nothing while nobody does."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the next notification, at most `timeout` seconds."""
        if self._event is None:
            self._event = anyio.Event()
        event = self._event
        if timeout is None or timeout == math.inf:
            await event.wait()
        else:
            with anyio.move_on_after(timeout):
                await event.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.wait()

    @property
    def awaited(self) -> bool:
        return self._event is not None


class RunState:
    """The shared state of one run. Everything here is touched on the event loop only."""

    def __init__(
        self,
        name: str,
        options: PipelineOptions,
        telemetry: Telemetry,
        handlers: Mapping[str, str],
    ) -> None:
        self.name = name
        self.options = options
        self.telemetry = telemetry
        self.clock: Callable[[], float] = anyio.current_time
        self.started = self.clock()
        self.window = Window(options.max_in_flight, options.max_in_flight_bytes)
        self.restarts = Restarts(options.max_restarts, options.restart_window)
        self.changed = Signal()
        self.freed = Signal()
        self.phase = "starting"
        self.received = 0
        self.counts: dict[str, int] = {}
        self.failed = 0
        self.retried = 0
        self.failures = Failures(self, handlers)
        self.progress = self.started
        self.arrival = self.started
        self.deadline = math.inf
        self.threads = Threads(options.max_threads, self._exhausted)
        self.callbacks: list[WorkerState] = []
        self.halts: dict[Any, int] = {}
        self.halted: dict[Place, None] = {}
        self.error: BaseException | None = None
        self.stop: Callable[[], None] = lambda: None
        self.relieve: Callable[[], None] = lambda: None
        self._timers = TimerQueue()
        self._parked: dict[object, tuple[float, Callable[[], None]]] = {}
        self._alarm = Signal()

    def rested(self) -> None:
        """A worker has nothing to do: see whether the window is what everybody waits for."""
        self.changed.notify()
        self.relieve()

    # -- events

    def emit(self, event: Event) -> None:
        if self.telemetry.active:
            self.telemetry.emit(event)

    def warn(self, subject: str, text: str, **fields: Any) -> None:
        """Log and tell what works, and hardly as it is meant to."""
        log.warning("pipeline %r: %s", self.name, text, extra={"pipeline": self.name, **fields})
        self.emit(Warned(self.name, subject, text))

    def enter(self, phase: str) -> None:
        """Go to the next phase of the run."""
        self.phase = phase
        self.emit(PhaseChanged(self.name, phase, self.clock() - self.started))
        self.changed.notify()

    def handling(
        self, stage: str, messages: Sequence[Message[Any]]
    ) -> AbstractContextManager[Outcome]:
        """The delivery of a handler, where somebody traces."""
        tracer = self.telemetry.tracer
        return _NO_SPAN if tracer is None else tracer.handling(self.name, stage, messages)

    # -- callbacks

    async def watched(self, name: str, coroutine: Awaitable[T]) -> T:
        """Await a user's callback outside of the workers, known to the watchdog by `name`."""
        worker = WorkerState(name, 0)
        worker.coroutine = coroutine
        worker.hold([], self.clock())
        self.callbacks.append(worker)
        token = current_worker.set(worker)
        try:
            return await coroutine
        finally:
            current_worker.reset(token)
            self.callbacks.remove(worker)

    def _exhausted(self, threads: Threads) -> None:
        error = ThreadsExhausted(
            f"pipeline {self.name!r}: all of max_threads={threads.most} worker threads hang, and a "
            f"thread cannot be ended from outside. What is not settled is replayed by the next "
            f"run: restart the process, and give what its handlers wait for a timeout of its own. "
            f"They hang in {threads.describe()}"
        )
        log.error("%s", error, extra={"pipeline": self.name})
        self.fail(error)

    # -- timers

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at `when`, on the event loop."""
        if self._timers.at(when, callback):
            self._alarm.notify()

    def park(self, due: float, resume: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Call `resume` at `due`, or `give_up` when a drain would not last that long."""
        if due > self.deadline:
            give_up()
            return
        self._parked[(entry := object())] = (due, give_up)

        def fire() -> None:
            if self._parked.pop(entry, None) is not None:
                resume()

        self.at(due, fire)

    def draining_until(self, deadline: float) -> None:
        """A drain began: what is parked for longer than that is given up now."""
        self.deadline = deadline
        for entry, (due, give_up) in list(self._parked.items()):
            if due > deadline:
                del self._parked[entry]
                give_up()

    async def run_timers(self) -> None:
        """Runs the timers until cancelled."""
        while True:
            for callback in self._timers.due(self.clock()):
                callback()
            next_at = self._timers.next
            await self._alarm.wait(None if next_at is None else max(next_at - self.clock(), 0))

    # -- ends

    def halt(self, failure: Failure, reason: str | None = None) -> None:
        """Stop because of a message; it and what lies past it on its partition stays unsettled."""
        message, offset = failure.message, failure.message.offset
        self.failures.attempted([failure])
        self.failures.halted([failure])
        self.stop_at(message)
        if not message._delivery.partition.pushed:
            self.halted[message.stream, offset] = None
        if self.error is None:
            self.error = halted(self.name, failure, reason or failure.reason)
            log.error(
                "%s", self.error,
                extra={"pipeline": self.name, "stage": failure.stage, "stream": message.stream,
                       "offset": offset},
            )  # fmt: skip
            self.emit(Halted(self.name, type_name(self.error), text_of(self.error)))
        self.stop()

    def stop_at(self, message: Message[Any]) -> None:
        """Abandon what lies behind the message in its partition and was not handed to a handler."""
        partition, offset = message._delivery.partition, message.offset
        self.halts[partition] = min(offset, self.halts.get(partition, offset))

    def fail(self, error: BaseException) -> None:
        """Stop because something other than a message is broken."""
        if self.error is None:
            self.error = error
            self.emit(Halted(self.name, type_name(error), text_of(error)))
        self.stop()

    def split_at_halt(
        self, messages: list[Message[Any]]
    ) -> tuple[list[Message[Any]], list[Message[Any]]]:
        """Part messages into those that may go on and those past the offset that halted."""
        go: list[Message[Any]] = []
        held: list[Message[Any]] = []
        for message in messages:
            limit = self.halts.get(message._delivery.partition)
            (go if limit is None or message.offset < limit else held).append(message)
        return go, held

    def crashed(self, stage: str, error: BaseException, *, restart: bool) -> None:
        """Tell that a stage broke."""
        if self.failures.broke(stage, "crash", error):
            log.error(
                "pipeline %r: stage %r crashed", self.name, stage, exc_info=printable(error),
                extra={"pipeline": self.name, "stage": stage},
            )  # fmt: skip
        self.emit(StageCrashed(self.name, stage, describe(error), restart))

    async def supervise(
        self,
        stage: str,
        body: Callable[[], Awaitable[None]],
        crashed: Callable[[BaseException], Awaitable[None]],
    ) -> None:
        """Run a stage's loop; after a crash settle what it held and restart it, within limits."""
        while True:
            try:
                return await body()
            except BaseException as error:
                if is_a(error, GeneratorExit):
                    raise
                let_through(error)
                restart = self.restarts.allow(self.clock())
                self.crashed(stage, error, restart=restart)
                await crashed(error)
                if not restart:
                    self.fail(as_exception(f"stage {stage!r} crashed too often", error))
                await anyio.lowlevel.checkpoint()  # what crashes at once must not keep the loop
