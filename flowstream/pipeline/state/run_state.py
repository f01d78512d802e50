"""The state that the stages of one run share: window, timers, counters, halts and errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, Protocol, TypeVar

import anyio
import anyio.lowlevel

from flowstream.errors import ThreadsExhausted
from flowstream.pipeline.deciders.discards import Place
from flowstream.pipeline.deciders.restarts import Restarts
from flowstream.pipeline.deciders.window import Window
from flowstream.pipeline.handlers.calls import as_exception, let_through
from flowstream.pipeline.handlers.threads import Threads
from flowstream.pipeline.handlers.worker_state import WorkerState, current_worker
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import PipelineOptions
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.state.failure_log import FailureLog
from flowstream.pipeline.state.halting import halted
from flowstream.pipeline.state.hooks import RunHooks
from flowstream.pipeline.state.timers import Timers
from flowstream.signals import Signal, loop_clock
from flowstream.telemetry import (
    Event,
    Halted,
    Outcome,
    PhaseChanged,
    StageCrashed,
    Telemetry,
    Warned,
)
from flowstream.texts import describe, is_a, leaves, printable, text_of, type_name

log: Final = logging.getLogger("flowstream.pipeline")

T = TypeVar("T")
_NO_SPAN: AbstractContextManager[Outcome] = nullcontext(lambda messages, error: None)


class Stage(Protocol):
    """A place where messages wait or are handled. Stages add themselves to `RunState.stages`."""

    @property
    def idle(self) -> bool:
        """Whether no message is here."""

    @property
    def stalled(self) -> bool:
        """Whether all messages here are in open batches, and wait for more messages."""

    def flush(self, trigger: str) -> None:
        """Close the open batches."""

    def handling(self) -> list[str]:
        """The names of the handlers that are running here."""


class RunState:
    """The shared state of one run. Everything here is touched on the event loop only."""

    def __init__(
        self,
        name: str,
        options: PipelineOptions,
        telemetry: Telemetry,
        handlers: Mapping[tuple[str, str], str],
        hooks: RunHooks | None = None,
    ) -> None:
        self.name = name
        self.hooks = hooks
        self.options = options
        self.telemetry = telemetry
        self.clock: Final = loop_clock()
        self.started: float = self.clock()
        self.ended_at: float | None = None
        self.window: Final = Window(options.max_in_flight, options.max_in_flight_bytes)
        self.restarts: Final = Restarts(options.max_restarts, options.restart_window)
        self.timers: Final = Timers(self.clock)
        self.changed: Final = Signal()
        self.freed: Final = Signal()
        self.phase: str = "starting"
        self.stages: list[Stage] = []
        self.blocked = 0
        """How many calls of `send` wait for room in the window."""
        self.received = 0
        self.counts: dict[str, int] = {}
        self.failed = 0
        self.retried = 0
        self.failures: Final = FailureLog(
            name, telemetry, self.clock, timers=self.timers, mask=options.mask, handlers=handlers
        )
        self.progress: float = self.started
        self.arrival: float = self.started
        self.threads: Final = Threads(options.max_threads, self._exhausted)
        self.callbacks: list[WorkerState] = []
        self.halts: dict[Any, int] = {}
        self.halted: dict[Place, None] = {}
        self.error: BaseException | None = None
        self.stopping: bool = False
        self.taking: Final = anyio.CancelScope()
        """The scope of the source. Once it is cancelled, no message is taken in."""
        self.draining: Final = anyio.CancelScope()
        """The scope of the drain; its deadline is the end of `drain_timeout`."""

    @property
    def now(self) -> float:
        """The time, which stops at the end of the run."""
        return self.clock() if self.ended_at is None else self.ended_at

    @property
    def unsettled(self) -> int:
        """How many received messages are not settled; the next run gets them again."""
        return self.received - sum(self.counts.values())

    # -- events

    def emit(self, event: Event) -> None:
        if self.telemetry.active:
            self.telemetry.emit(event)

    def warn(self, subject: str, text: str, **fields: Any) -> None:
        """Log and emit that something works, but probably not as intended."""
        log.warning("pipeline %r: %s", self.name, text, extra={"pipeline": self.name, **fields})
        self.emit(Warned(self.name, subject, text))

    def enter(self, phase: str) -> None:
        """Go to the next phase of the run."""
        self.phase = phase
        self.emit(PhaseChanged(self.name, phase, self.clock() - self.started))
        self.changed.notify()

    def handling(self, stage: str, part: Slice[Any]) -> AbstractContextManager[Outcome]:
        """The span of a handler, if there is a tracer."""
        tracer = self.telemetry.tracer
        return _NO_SPAN if tracer is None else tracer.handling(self.name, stage, part.messages)

    # -- pressure

    def rested(self) -> None:
        """A worker is idle: check whether all wait because the window is full."""
        self.changed.notify()
        self.flush_on_pressure()

    def flush_on_pressure(self) -> None:
        """Close batches early when the window is full of messages that wait in open ones."""
        if self.blocked and all(stage.stalled for stage in self.stages):
            self.flush("window")

    def flush(self, trigger: str) -> None:
        """Close all open batches."""
        for stage in self.stages:
            stage.flush(trigger)

    @property
    def busy(self) -> bool:
        """Whether a stage still has messages."""
        return not all(stage.idle for stage in self.stages)

    def busy_handlers(self) -> list[str]:
        """The names of all callbacks that are running, such as those that a drain waits for."""
        names = [name for stage in self.stages for name in stage.handling()]
        return names + [worker.callback or worker.name for worker in self.callbacks]

    # -- callbacks

    async def watched(self, name: str, coroutine: Awaitable[T]) -> T:
        """Await a user's callback outside of the workers; the watchdog reports it by `name`.

        So does a note of what it raises.
        """
        worker = WorkerState(name, 0)
        worker.coroutine = coroutine
        worker.hold(Slice.of([]), self.clock())
        self.callbacks.append(worker)
        token = current_worker.set(worker)
        try:
            return await coroutine
        except Exception as error:
            note = f"pipeline {self.name!r}: {name}"
            for each in leaves(error):
                with suppress(Exception):  # its class may have an `add_note` of its own
                    if note not in getattr(each, "__notes__", ()):  # it may be raised repeatedly
                        each.add_note(note)
            raise
        finally:
            current_worker.reset(token)
            self.callbacks.remove(worker)

    def _exhausted(self, threads: Threads) -> None:
        error = ThreadsExhausted(
            f"pipeline {self.name!r}: all of max_threads={threads.most} worker threads hang, and a "
            f"thread cannot be ended from outside. What is not settled is replayed by the next "
            f"run: restart the process, and set timeouts on what its handlers wait for. "
            f"They hang in {threads.describe()}"
        )
        log.error(str(error), extra={"pipeline": self.name})
        self.fail(error)

    # -- ends

    def stop(self) -> None:
        """Take in no more messages, and drain."""
        if not self.stopping:
            self.stopping = True
            if self.phase == "draining":
                self.limit_drain()
        self.taking.cancel()

    def limit_drain(self) -> None:
        """Limit the drain to drain_timeout seconds from now."""
        self.draining.deadline = self.clock() + self.options.drain_timeout
        self.timers.end_at(self.draining.deadline)

    def halt(self, failure: Failure, reason: str | None = None) -> None:
        """Stop at a message. It and the messages behind it in its partition stay unsettled."""
        message, offset = failure.message, failure.message.offset
        self.failures.attempted([failure])
        self.failures.halted([failure])
        self.stop_at(message)
        if not message._delivery.partition.pushed:
            self.halted[message.stream, offset] = None
        if self.error is None:
            said = self.failures.said(failure)
            self.error = halted(self.name, failure, said, reason or failure.reason)
            log.error(
                str(self.error),
                extra={"pipeline": self.name, "stage": failure.stage, "stream": message.stream,
                       "offset": offset},
            )  # fmt: skip
            self.emit(Halted(self.name, type_name(self.error), text_of(self.error)))
        self.stop()

    def stop_at(self, message: Message[Any]) -> None:
        """Abandon the messages behind this one in its partition that no handler has got yet."""
        partition, offset = message._delivery.partition, message.offset
        self.halts[partition] = min(offset, self.halts.get(partition, offset))

    def fail(self, error: BaseException) -> None:
        """Stop because of an error that no message caused."""
        if self.error is None:
            self.error = error
            self.emit(Halted(self.name, type_name(error), text_of(error)))
        self.stop()

    def split_at_halt(
        self, messages: Sequence[Message[Any]]
    ) -> tuple[list[Message[Any]], list[Message[Any]]]:
        """Split messages into those that may be handled and those behind a halt."""
        go: list[Message[Any]] = []
        behind: list[Message[Any]] = []
        for message in messages:
            limit = self.halts.get(message._delivery.partition)
            (go if limit is None or message.offset < limit else behind).append(message)
        return go, behind

    # -- crashes

    def crashed(self, stage: str, error: BaseException, *, restart: bool) -> None:
        """Log and emit that a stage crashed."""
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
        """Run a stage's loop. After a crash, settle what it held and restart it, within limits."""
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
                await (
                    anyio.lowlevel.checkpoint()
                )  # a stage that crashes at once must not block the loop
