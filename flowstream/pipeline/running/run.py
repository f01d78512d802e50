"""One run of a pipeline, from start to end: open, run the stages, drain, close."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel

from flowstream.errors import ConfigurationError, FlowstreamError, Halted, SourceFailed
from flowstream.pipeline.advice import advice_for
from flowstream.pipeline.context import BROKEN, CLOSE_GRACE, RunContext, checked_manager
from flowstream.pipeline.deciders.discards import Discards, Place, named
from flowstream.pipeline.deciders.rate_limit import RateLimiter
from flowstream.pipeline.declaration import Declaration
from flowstream.pipeline.ends import ends_of
from flowstream.pipeline.handlers.calls import as_exception, passes
from flowstream.pipeline.handlers.loopwatch import watching
from flowstream.pipeline.handlers.watchdog import Watchdog
from flowstream.pipeline.loops import fed_back, refuse_loop, sources
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.running.assembly import Assembly, Stages
from flowstream.pipeline.running.drain import Drain
from flowstream.pipeline.running.gc_tuning import tuned_collector
from flowstream.pipeline.running.lag import LagWatch
from flowstream.pipeline.running.statistics import RunResult
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.committer import Committer
from flowstream.pipeline.stages.offset_watch import OffsetWatch
from flowstream.pipeline.stages.source import COMMIT_GRACE, Source
from flowstream.pipeline.state import story
from flowstream.pipeline.state.halting import advise
from flowstream.pipeline.state.hooks import RunHooks
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.telemetry import Controlled, StageCrashed, Telemetry
from flowstream.texts import describe, is_a, leaves, plural, type_name
from flowstream.version import __version__

_taken: dict[int, Run] = {}
"""The run that reads a producer, by the producer's id."""


class Run:
    """One run of a pipeline. Made on the event loop; `main` runs it to its end and never raises."""

    def __init__(
        self, declaration: Declaration, *, url: str | Sequence[str] | None, environment: Any,
        telemetry: Telemetry | None, tune_gc: bool, discard: Sequence[Place] = (),
        hooks: RunHooks | None = None,
    ) -> None:  # fmt: skip
        self.declaration = declaration
        self.ends: Final = ends_of(declaration)
        self.state: Final = RunState(
            declaration.name, declaration.options, telemetry or Telemetry(),
            declaration.handlers, hooks,
        )  # fmt: skip
        state = self.state
        self.ack_tracker: Final = AckTracker(state)
        self.context: Final = RunContext(
            declaration.name, url=url, environment=environment, telemetry=state.telemetry,
            counts=state.counts, watched=state.watched, fail=state.fail,
            settled=self.ack_tracker.settled_offsets,
        )  # fmt: skip
        self.limiter: Final = RateLimiter(declaration.options.rate_limit)
        self.watchdog: Final = Watchdog(state)
        self.discards: Final = Discards(discard)
        self.offset_watch: Final = OffsetWatch(state, self.ack_tracker, declaration.producer)
        self.committer: Final = Committer(
            state, self.ack_tracker, declaration.producer, self.offset_watch
        )
        self.drain: Final = Drain(state, self.committer)
        self.stages: Stages | None = None
        self.lag: LagWatch | None = None
        self.reads: list[str] = [*sources(declaration.producer)]
        self.reason: str = "ended"
        self.stopped_by: str = ""
        self.opened: bool = False
        self.seconds: float = 0.0
        self.ready: Final = anyio.Event()
        self.finished: Final = anyio.Event()
        self._tune_gc = tune_gc
        self._everything = anyio.CancelScope()

    @property
    def built(self) -> Stages:
        """The stages. Raises ConfigurationError while the run is still being opened."""
        if self.stages is None:
            raise ConfigurationError(
                f"pipeline {self.state.name!r} is still starting: wait until `start` has entered"
            )
        return self.stages

    # -- control

    def stop(self, by: str = story.PROGRAM) -> None:
        """Stop taking messages in, then drain."""
        if self.finished.is_set():
            return
        if self.reason == "ended" and not self.state.stopping:
            self.reason = "stopped"
            self.stopped_by = by
            self.controlled("stop", by=by)
        self.state.stop()

    def abort(self, by: str = story.PROGRAM) -> None:
        """Stop without draining; what is settled is committed."""
        if not self.finished.is_set():
            if self.reason != "aborted":
                self.stopped_by = by
                self.controlled("abort", by=by)
            self.reason = "aborted"
            self._everything.cancel()

    def controlled(self, action: str, detail: str = "", *, by: str | None) -> None:
        """Log and emit who changed how the pipeline runs."""
        who, state = story.said(by), self.state
        log.info(
            "pipeline %r: %s, by %s", state.name, story.control(action, detail), who,
            extra={"pipeline": state.name, "action": action, "by": who},
        )  # fmt: skip
        state.emit(Controlled(state.name, action, detail, who))

    # -- life

    async def main(self) -> None:
        """Open, run, drain, close. The outcome is in `result`; only a cancellation is raised."""
        state = self.state
        log.info(
            "pipeline %r starts (flowstream %s): %s", state.name, __version__,
            story.declared(self.declaration),
            extra={"pipeline": state.name, "version": __version__},
        )  # fmt: skip
        try:
            with self._everything, tuned_collector(self._tune_gc), watching(self.watchdog):
                try:
                    async with anyio.create_task_group() as keeping:
                        keeping.start_soon(self.context.keep, name=f"{state.name} keeper")
                        keeping.start_soon(self.watchdog.run, name=f"{state.name} watchdog")
                        try:
                            await self._main()
                        finally:
                            self.context.close()
                            self.watchdog.stop()
                except BaseException as error:
                    if passes(error):
                        self._cut_off()
                        raise
                    broken = as_exception(BROKEN, unwrap(error))
                    state.error = state.error or broken
        finally:
            self._end()

    async def _main(self) -> None:
        self._advise()
        async with AsyncExitStack() as stack:
            producer = self.declaration.producer
            self._take(producer, stack)
            scope = stack.enter_context(anyio.CancelScope())
            stack.push_async_callback(_closing, producer.close, scope)
            await self.state.watched(f"{type_name(producer)}.open", producer.open(self.context))
            self.discards.check(self.state.name, producer.reads())
            self._check_loops()
            resources = await self._open_resources(stack)
            assembly = Assembly(
                self.declaration, self.state, self.context, self.ack_tracker, self.committer,
                limiter=self.limiter, discards=self.discards, resources=resources,
                reads=self.reads,
            )  # fmt: skip
            stages = self.stages = await assembly.build()
            lag = self.lag = LagWatch(self.state, producer, stages.source)
            async with anyio.create_task_group() as group:
                self._start(group, stages, lag)
                try:
                    await self._produce(stages.source)
                    await self.drain.run(stages, self.stopped_by)
                    if self.drain.timed_out:
                        self.reason = "drain timeout"
                except BaseException:
                    await self.drain.commit()
                    raise
                finally:
                    for pool in stages.pools:
                        pool.close()
                self.state.enter("closing")
                group.cancel_scope.cancel()

    def _advise(self) -> None:
        """Log the advice on the declaration, which `flowstream check` lists, too."""
        for each in advice_for(self.declaration):
            self.state.warn(each.subject, str(each))

    def _check_loops(self) -> None:
        """Check for loops again, now that the partitions of super streams are known."""
        declaration = self.declaration
        self.reads = [*dict.fromkeys((*self.reads, *sources(declaration.producer)))]
        refuse_loop(declaration.name, declaration.options.on_failure, self.reads)
        sinks = [each.sink for each in declaration.batchers.values() if each.sink is not None]
        for stream in fed_back(sinks, self.reads):
            log.warning(
                "pipeline %r: a sink publishes into %s, which the pipeline reads: its messages "
                "come back, endlessly unless a handler drops them", declaration.name, stream,
                extra={"pipeline": declaration.name, "stream": stream},
            )  # fmt: skip

    def _take(self, producer: Producer, stack: AsyncExitStack) -> None:
        """Refuse a producer that another run reads: it has the state of one run."""
        other = _taken.setdefault(id(producer), self)
        if other is not self:
            raise ConfigurationError(
                f"{self.declaration.path} > producer: pipeline {other.state.name!r} is running "
                f"with this {type_name(producer)}; give each pipeline a producer of its own"
            )
        stack.callback(_taken.pop, id(producer))

    async def _open_resources(self, stack: AsyncExitStack) -> Any:
        lifespan = self.declaration.options.lifespan
        if lifespan is None:
            return None
        manager = checked_manager(lifespan(), f"{self.declaration.path} > lifespan")
        scope = stack.enter_context(anyio.CancelScope())
        resources = await self.state.watched("lifespan", manager.__aenter__())
        stack.push_async_exit(partial(self._leave_lifespan, manager, scope))
        return resources

    async def _leave_lifespan(
        self,
        manager: AbstractAsyncContextManager[Any],
        scope: anyio.CancelScope,
        kind: type[BaseException] | None,
        *raised: Any,
    ) -> bool | None:
        """Close the resources in CLOSE_GRACE seconds, also in a cancelled run."""
        caught: bool | None = False
        with _limited(scope, CLOSE_GRACE):
            caught = await self.state.watched("lifespan", manager.__aexit__(kind, *raised))
        if scope.cancel_called:
            log.error(
                "%s: lifespan did not close within %g s", self.state.name, CLOSE_GRACE,
                extra={"pipeline": self.state.name},
            )  # fmt: skip
        if not caught or kind is not anyio.get_cancelled_exc_class():
            return None  # the error of a run is not the lifespan's to catch
        if self._everything.cancel_called:
            return None
        self.state.error = self.state.error or ConfigurationError(
            f"{self.declaration.path} > lifespan: it cancelled the run, as a timeout around its "
            "`yield` does; put only what opens and closes into such a block"
        )
        return True

    def _start(self, group: anyio.abc.TaskGroup, stages: Stages, lag: LagWatch) -> None:
        state, handler = self.state, stages.failure_handler
        group.start_soon(state.timers.run, name=f"{state.name} timers")
        group.start_soon(self.offset_watch.run, name=f"{state.name} offset watch")
        group.start_soon(lag.run, name=f"{state.name} lag")
        group.start_soon(state.supervise, "committer", self.committer.run, _nothing_held)
        group.start_soon(state.supervise, "failure handler", handler.run, handler.crashed)
        for pool in stages.pools:
            pool.start(group)
        self.watchdog.watch(stages.pools)
        state.enter("running")
        self.opened = True
        seconds = state.clock() - state.started
        log.info(
            "pipeline %r is running, %.1f s after its start", state.name, seconds,
            extra={"pipeline": state.name, "seconds": round(seconds, 3)},
        )  # fmt: skip
        self.ready.set()

    async def _produce(self, source: Source) -> None:
        with self.state.taking:
            while await self._run_producer(source):
                source.begin_again()
                await (
                    anyio.lowlevel.checkpoint()
                )  # a producer that crashes at once must not block the loop

    async def _run_producer(self, source: Source) -> bool:
        """Run the producer until it ends. Returns True if it must be run again."""
        state, producer = self.state, self.declaration.producer
        task = anyio.get_current_task().id
        try:
            await producer.run(source)
        except BaseException as error:
            if (is_a(error, GeneratorExit) and not _runs(task)) or passes(error):
                raise
            known = unwrap(error)
            if is_a(known, FlowstreamError):
                state.fail(known)
                return False
            restart = producer.resumable and state.restarts.allow(state.clock())
            if restart:
                state.crashed("producer", error, restart=True)
            else:
                state.failures.broke("producer", "crash", error)
                state.emit(StageCrashed(state.name, "producer", describe(error), False))
                state.fail(self._source_failed(error))
            return restart
        return False

    def _source_failed(self, error: BaseException) -> SourceFailed:
        source = type_name(self.declaration.producer)
        failed = SourceFailed(
            f"pipeline {self.state.name!r}: its source {source} failed "
            f"after {plural(self.state.received, 'message')}: {describe(error)}. These are handled "
            "before the run ends"
        )
        failed.__cause__ = error
        return failed

    # -- the end

    def _cut_off(self) -> None:
        """The program was interrupted, or cancelled this run, before it was drained."""
        state = self.state
        if self.reason in ("ended", "stopped") and state.error is None and state.phase != "closing":
            self.reason, self.stopped_by = "aborted", story.CANCELLED

    def _end(self) -> None:
        state = self.state
        if state.error is not None and self.reason in ("ended", "stopped"):
            self.reason = "halted" if isinstance(state.error, Halted) else "failed"
        self._conclude()
        state.ended_at = state.clock()
        self.seconds = state.ended_at - state.started
        state.enter("stopped")
        log.info(
            "pipeline %r has ended %s", state.name,
            story.ended(state, self.reason, self.stopped_by, self.seconds),
            extra={"pipeline": state.name, "reason": self.reason,
                   "seconds": round(self.seconds, 3), "received": state.received,
                   "unsettled": state.unsettled},
        )  # fmt: skip
        self.ready.set()
        self.finished.set()

    def _conclude(self) -> None:
        """Log and complete what is only known once everything is committed."""
        state, discards = self.state, self.discards
        state.failures.conclude()
        partitions = self.stages.source.partitions if self.stages and self.opened else []
        if isinstance(state.error, Halted):
            committed = self.committer.committed()
            again = [
                (stream, offset)
                for stream, offset in discards.met
                if offset > (-1 if committed.get(stream) is None else committed[stream])
            ]
            unstored = {partition.stream for partition in partitions if partition.tracker is None}
            advise(state.error, tuple(state.halted), again, unstored)
        for partition in partitions:
            if partition.lost:
                log.error(
                    "pipeline %r: %s of %r %s not settled. The source has no offsets, so the next "
                    "run gets what is not settled only if the source sends it again",
                    state.name, plural(partition.lost, "message"), partition.stream,
                    "is" if partition.lost == 1 else "are",
                    extra={"pipeline": state.name, "stream": partition.stream,
                           "lost": partition.lost},
                )  # fmt: skip
        for place, why in discards.unmet().items() if self.opened else ():
            log.warning(
                "pipeline %r: did not discard %s: %s", state.name, named(place), why,
                extra={"pipeline": state.name, "stream": place[0], "offset": place[1]},
            )  # fmt: skip

    def result(self) -> RunResult:
        """The result of the run, or its figures until now."""
        state, running = self.state, not self.finished.is_set()
        return RunResult(
            pipeline=state.name,
            reason="running" if running else self.reason,
            received=state.received,
            settled=dict(state.counts),
            failed=state.failed,
            retried=state.retried,
            unsettled=state.unsettled,
            committed=self.committer.committed(),
            seconds=state.clock() - state.started if running else self.seconds,
            error=state.error,
            hung=state.threads.hung,
            discarded=tuple(self.discards.met),
            not_discarded=self.discards.unmet(),
            reasons=state.failures.reasons,
            repeated=self._repeated(),
        )

    def _repeated(self) -> int:
        """How many settled messages come again, because one before them is not settled."""
        source = self.stages.source if self.stages and self.opened else None
        marks = [it.mark for it in source.partitions if it.resumes] if source else []
        return sum(mark.repeated - mark.unsettled for mark in marks)


def unwrap(error: BaseException) -> BaseException:
    """The exception itself; of a group the first one that is an error of flowstream."""
    found = list(leaves(error))
    return next((leaf for leaf in found if is_a(leaf, FlowstreamError)), found[0])


def _runs(task: int) -> bool:
    """Whether the task runs. Otherwise its coroutine is being closed, by a GeneratorExit."""
    try:
        return anyio.get_current_task().id == task
    except anyio.NoEventLoopError:
        return False


async def _nothing_held(error: BaseException) -> None:
    return None


async def _closing(close: Any, scope: anyio.CancelScope) -> None:
    with _limited(scope, COMMIT_GRACE):
        await close()


@contextmanager
def _limited(scope: anyio.CancelScope, seconds: float) -> Iterator[None]:
    """Limits the rest of a scope that was entered before what is closed now was opened.

    It is not a scope of its own: task groups that were entered at the opening, such as that of an
    `Environment`, must be left inside the same scopes.
    """
    scope.shield = True
    scope.deadline = anyio.current_time() + seconds
    try:
        yield
    except anyio.get_cancelled_exc_class():
        if not scope.cancel_called:
            raise
