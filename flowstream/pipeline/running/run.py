"""One run of a pipeline: builds the stages, runs them in one task group, and ends them in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from flowstream import __version__
from flowstream.errors import FlowstreamError, Halted, SourceFailed
from flowstream.pipeline.advice import advice_for
from flowstream.pipeline.annotations import Signature, bind
from flowstream.pipeline.context import BROKEN, CLOSE_GRACE, RunContext
from flowstream.pipeline.deciders.discards import Discards, Place, named
from flowstream.pipeline.deciders.rate_limit import RateLimiter
from flowstream.pipeline.declaration import Declaration, Declared
from flowstream.pipeline.handlers.calls import as_exception, passes, thread_handler
from flowstream.pipeline.handlers.loopwatch import watching
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.watchdog import Watchdog
from flowstream.pipeline.loops import fed_back, refuse_loop, sources
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import ProcessorOptions
from flowstream.pipeline.payload import decoder
from flowstream.pipeline.running import drain
from flowstream.pipeline.running.gc_tuning import tuned_collector
from flowstream.pipeline.running.lag import LagWatch
from flowstream.pipeline.running.statistics import RunResult
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.committer import Committer
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.stages.offset_watch import OffsetWatch
from flowstream.pipeline.stages.processor import Processors
from flowstream.pipeline.stages.router import Router
from flowstream.pipeline.stages.source import COMMIT_GRACE, Source
from flowstream.pipeline.state import story
from flowstream.pipeline.state.halting import advise
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.telemetry import Controlled, StageCrashed, Telemetry
from flowstream.texts import describe, is_a, leaves, plural, type_name


class Run:
    """The parts of one run. Made on the event loop; `main` runs it to its end and never raises."""

    def __init__(
        self, declaration: Declaration, *, url: Any, environment: Any, telemetry: Telemetry | None,
        tune_gc: bool, discard: Sequence[Place] = (),
    ) -> None:  # fmt: skip
        self.declaration = declaration
        handlers = {
            stage.name: stage.handler.rpartition("<locals>.")[2]
            for stage in declaration.topology().stages
        }
        self.state = state = RunState(
            declaration.name, declaration.options, telemetry or Telemetry(), handlers
        )
        self.context = RunContext(
            declaration.name, url=url, environment=environment, telemetry=state.telemetry,
            counts=state.counts, watched=state.watched, fail=state.fail,
        )  # fmt: skip
        self.limiter = RateLimiter(declaration.options.rate_limit)
        self.watchdog = Watchdog(state)
        self.ack_tracker = AckTracker(state)
        self.discards = Discards(discard)
        self.offset_watch = OffsetWatch(state, self.ack_tracker, declaration.producer)
        self.committer = Committer(state, self.ack_tracker, declaration.producer, self.offset_watch)
        self.lag = LagWatch(
            state, declaration.producer, lambda: self.intake.partitions, lambda: self.intake.paused
        )
        self.reads = [*sources(declaration.producer)]
        self.reason = "ended"
        self.stopped_by = ""
        self.drain_step = ""
        self.opened = False
        self.seconds = 0.0
        self.ready = anyio.Event()
        self.finished = anyio.Event()
        self.resources: Any = None
        self.batchers: dict[str, Batcher] = {}
        self._tune_gc = tune_gc
        self.stopping = False
        self.draining = anyio.CancelScope()
        self._taking = anyio.CancelScope()
        self._everything = anyio.CancelScope()
        state.stop = self._stop_taking

    # -- control

    def stop(self, by: str = story.PROGRAM) -> None:
        """Stop taking messages in, then drain."""
        if self.finished.is_set():
            return
        if self.reason == "ended" and not self._taking.cancel_called:
            self.reason = "stopped"
            self.stopped_by = by
            self.controlled("stop", by=by)
        self._stop_taking()

    def abort(self, by: str = story.PROGRAM) -> None:
        """Stop without draining; what is settled is committed."""
        if not self.finished.is_set():
            if self.reason != "aborted":
                self.stopped_by = by
                self.controlled("abort", by=by)
            self.reason = "aborted"
            self._everything.cancel()

    def controlled(self, action: str, detail: str = "", *, by: str | None) -> None:
        """Somebody changed how it runs: say what, and who."""
        who, state = story.said(by), self.state
        log.info(
            "pipeline %r: %s, by %s", state.name, story.control(action, detail), who,
            extra={"pipeline": state.name, "action": action, "by": who},
        )  # fmt: skip
        state.emit(Controlled(state.name, action, detail, who))

    def _stop_taking(self) -> None:
        if not self.stopping:
            self.stopping = True
            if self.state.phase == "draining":
                drain.limit(self)
        self._taking.cancel()

    # -- life

    async def main(self) -> None:
        """Open, run, drain, close. The outcome is in `result`; only cancellation gets through."""
        name = self.state.name
        log.info(
            "pipeline %r starts (flowstream %s): %s", name, __version__,
            story.declared(self.declaration), extra={"pipeline": name, "version": __version__},
        )  # fmt: skip
        try:
            with self._everything, tuned_collector(self._tune_gc), watching(self.watchdog):
                try:
                    async with anyio.create_task_group() as keeping:
                        keeping.start_soon(self.context.keep, name=f"{self.state.name} keeper")
                        keeping.start_soon(self.watchdog.run, name=f"{name} watchdog")
                        try:
                            await self._main()
                        finally:
                            self.context.close()
                            self.watchdog.stop()
                except BaseException as error:
                    if passes(error):
                        raise
                    broken = as_exception(BROKEN, unwrap(error))
                    self.state.error = self.state.error or broken
        finally:
            if self.state.error is not None and self.reason in ("ended", "stopped"):
                self.reason = "halted" if isinstance(self.state.error, Halted) else "failed"
            self._conclude()
            ended = self.state.clock()
            self.seconds = ended - self.state.started
            self.state.enter("stopped")
            log.info(
                "pipeline %r has ended %s", name, story.ended(self),
                extra={"pipeline": name, "reason": self.reason, "seconds": round(self.seconds, 3),
                       "received": self.state.received, "unsettled": self.unsettled},
            )  # fmt: skip
            self.state.clock = lambda: ended  # a run that is over gets no older
            self.ready.set()
            self.finished.set()

    def _conclude(self) -> None:
        """What can only be said once everything is committed."""
        state, discards = self.state, self.discards
        state.failures.conclude()
        if isinstance(state.error, Halted):
            committed = self.committer.committed()
            again = [
                (stream, offset)
                for stream, offset in discards.met
                if offset > (-1 if committed.get(stream) is None else committed[stream])
            ]
            partitions = self.intake.partitions if self.opened else ()
            unstored = {partition.stream for partition in partitions if partition.tracker is None}
            advise(state.error, tuple(state.halted), again, unstored)
        for partition in self.intake.partitions if self.opened else ():
            if partition.lost:
                log.error(
                    "pipeline %r: %d messages of %r are not settled; it has no offsets to go on "
                    "from, so the next run gets them only if the source gives them again",
                    state.name, partition.lost, partition.stream,
                    extra={"pipeline": state.name, "stream": partition.stream,
                           "lost": partition.lost},
                )  # fmt: skip
        for place, why in discards.unmet().items() if self.opened else ():
            log.warning(
                "pipeline %r: did not discard %s: %s", state.name, named(place), why,
                extra={"pipeline": state.name, "stream": place[0], "offset": place[1]},
            )  # fmt: skip

    async def _main(self) -> None:
        self._advise()
        async with AsyncExitStack() as stack:
            producer = self.declaration.producer
            stack.push_async_callback(_closing, producer.close)
            await self.state.watched(f"{type_name(producer)}.open", producer.open(self.context))
            self.discards.check(self.state.name, producer.reads())
            self._check_loops()
            await self._open_resources(stack)
            await self._build()
            async with anyio.create_task_group() as group:
                self._start(group)
                try:
                    await self._produce()
                    await drain.drain(self)
                except BaseException:
                    await drain.commit(self)
                    raise
                finally:
                    for pool in self.pools:
                        pool.close()
                self.state.enter("closing")
                group.cancel_scope.cancel()

    def _advise(self) -> None:
        """Log what in the declaration is hardly meant; `flowstream check` lists the same."""
        for each in advice_for(self.declaration):
            self.state.warn(each.subject, str(each))

    def _check_loops(self) -> None:
        """Once more, with the partitions that only the broker knows."""
        declaration = self.declaration
        self.reads = [*dict.fromkeys((*self.reads, *sources(declaration.producer)))]
        refuse_loop(declaration.name, declaration.options.on_failure, self.reads)
        sinks = [each.sink for each in declaration.batchers.values() if each.sink is not None]
        for stream in fed_back(sinks, self.reads):
            log.warning(
                "pipeline %r: a sink publishes into %s, which the pipeline reads: its messages "
                "come back, without end unless a handler drops them", declaration.name, stream,
                extra={"pipeline": declaration.name, "stream": stream},
            )  # fmt: skip

    async def _open_resources(self, stack: AsyncExitStack) -> None:
        lifespan = self.declaration.options.lifespan
        if lifespan is not None:
            manager = lifespan()
            self.resources = await self.state.watched("lifespan", manager.__aenter__())
            stack.push_async_exit(_bounded(self.state.name, manager))

    async def _build(self) -> None:
        declaration, state = self.declaration, self.state
        on_failed = declaration.on_failed
        self.failure_handler = FailureHandler(
            state,
            self.ack_tracker,
            declaration.options.on_failure,
            None if on_failed is None else self._async("on_failed", on_failed),
            reads=self.reads,
        )
        await self.failure_handler.open(self.context)
        self.processors = self._build_processors()
        for name, declared in declaration.batchers.items():
            self.batchers[name] = await self._build_batcher(declared)
        self.intake = Source(
            state, self.context, self.ack_tracker, self.limiter, decoder=self._decoder(),
            discards=self.discards,
            forward=self.processors.put,
            reject=self._undecodable,
        )  # fmt: skip
        self.intake.flush = self._flush
        self.intake.commit = self._commit_now
        self.intake.busy_handlers = self.busy_handlers
        state.relieve = self._relieve
        if self.batchers:
            router = Router(self.batchers, self.failure_handler, self.processors.name)
            self.processors.forward = router.forward
        else:
            self.processors.forward = self._end_of_the_way

    def _build_processors(self) -> Processors:
        declaration = self.declaration
        declared = declaration.processor or _passing_on(declaration)
        options = declared.options
        prepare = declaration.prepare
        return Processors(
            self.state, options, self.ack_tracker, self.failure_handler,
            handler=self._bound(declared),
            is_async=declared.signature.is_async,
            prepare=None if prepare is None else self._async("prepare", prepare),
            partition_by=options.partition_by or declaration.options.partition_by,
            retry=declaration.options.retry,
            redecode=self._redecode,
        )  # fmt: skip

    async def _build_batcher(self, declared: Declared) -> Batcher:
        declaration, options = self.declaration, declared.options
        if declared.sink is None:
            handler, is_async = self._bound(declared), declared.signature.is_async
        else:
            handler = await self.context.enter(declared.sink.writer(self.context))
            is_async = True
        return Batcher(
            self.state, options, self.ack_tracker, self.failure_handler,
            handler=handler, is_async=is_async,
            inherits=self.processors.queues.partitioned,
            phase="batch" if declared.sink is None else "sink",
            retry=declaration.options.retry,
        )  # fmt: skip

    def _bound(self, declared: Declared) -> Any:
        return bind(declared.handler, declared.signature, self.resources)

    def _async(self, name: str, declared: Declared) -> Any:
        handler = self._bound(declared)
        if declared.signature.is_async:
            return handler
        return thread_handler(handler, name, self.state.threads)

    def _decoder(self) -> Any:
        declared = self.declaration.first
        return decoder(declared.signature.payload, handler=declared.signature.name)

    def _start(self, group: anyio.abc.TaskGroup) -> None:
        state = self.state
        group.start_soon(state.run_timers, name=f"{state.name} timers")
        group.start_soon(self.offset_watch.run, name=f"{state.name} offset watch")
        group.start_soon(self.lag.run, name=f"{state.name} lag")
        group.start_soon(self._supervised, "committer", self.committer.run, _nothing_held)
        group.start_soon(
            self._supervised,
            "failure_handler",
            self.failure_handler.run,
            self.failure_handler.crashed,
        )
        for pool in self.pools:
            pool.start(group)
        self.watchdog.watch(self.pools)
        state.enter("running")
        self.opened = True
        seconds = state.clock() - state.started
        log.info(
            "pipeline %r is running, %.1f s after its start", state.name, seconds,
            extra={"pipeline": state.name, "seconds": round(seconds, 3)},
        )  # fmt: skip
        self.ready.set()

    async def _supervised(self, name: str, body: Any, crashed: Any) -> None:
        await self.state.supervise(name, body, crashed)

    async def _produce(self) -> None:
        with self._taking:
            while await self._run_producer():
                self.intake.begin_again()
                await anyio.lowlevel.checkpoint()  # what crashes at once must not keep the loop

    async def _run_producer(self) -> bool:
        """Run the producer until it ends; True where it is to be run again."""
        state, producer = self.state, self.declaration.producer
        try:
            await producer.run(self.intake)
        except BaseException as error:
            if is_a(error, GeneratorExit) or passes(error):
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
            f"after {plural(self.state.received, 'message')}: {describe(error)}. Those are handled "
            "before the run ends, and what the source has not given is not"
        )
        failed.__cause__ = error
        return failed

    # -- between the stages

    async def _end_of_the_way(self, messages: list[Message[Any]], plain: bool) -> None:
        await self.ack_tracker.settle(messages, "ok")

    def _undecodable(self, failures: list[Failure]) -> None:
        self.failure_handler.put(failures)

    def _redecode(self, message: Message[Any]) -> Any:
        decoder = self.intake.decoder
        if decoder.decode is None or not message.raw:
            return message.data
        return decoder.of(message._delivery.partition.codec, message.raw)

    def _flush(self, trigger: str) -> None:
        for batcher in self.batchers.values():
            batcher.flush(trigger)

    def _relieve(self) -> None:
        """Close batches early when the window is full of messages that wait in open ones."""
        if (
            self.intake.blocked
            and self.batchers
            and self.processors.idle
            and self.failure_handler.idle
            and all(batcher.stalled for batcher in self.batchers.values())
        ):
            self._flush("window")

    async def _commit_now(self, stream: str) -> None:
        await self.committer.commit()
        await self.committer.verify(stream)

    # -- what it looks like

    @property
    def pools(self) -> list[Pool]:
        return [self.processors, *self.batchers.values()]

    @property
    def in_flight(self) -> int:
        """The messages that were taken in and are neither settled nor held."""
        return self.state.window.messages

    @property
    def busy(self) -> bool:
        """Does a stage still have something to do?"""
        batchers_idle = all(batcher.idle for batcher in self.batchers.values())
        return not (self.processors.idle and self.failure_handler.idle and batchers_idle)

    def busy_handlers(self) -> list[str]:
        """Where a run is that does not end: handlers of workers, and other callbacks."""
        workers = (
            worker for pool in self.pools for worker in pool.workers.values() if worker.active
        )
        return [worker.callback or worker.name for worker in (*workers, *self.state.callbacks)]

    @property
    def unsettled(self) -> int:
        """Messages received that the next run gets again, unless they are settled yet."""
        return self.state.received - sum(self.state.counts.values())

    def result(self) -> RunResult:
        state, running = self.state, not self.finished.is_set()
        return RunResult(
            pipeline=state.name,
            reason="running" if running else self.reason,
            received=state.received,
            settled=dict(state.counts),
            failed=state.failed,
            retried=state.retried,
            unsettled=self.unsettled,
            committed=self.committer.committed(),
            seconds=state.clock() - state.started if running else self.seconds,
            error=state.error,
            hung=state.threads.hung,
            discarded=tuple(self.discards.met),
            not_discarded=self.discards.unmet(),
            reasons=state.failures.reasons,
        )


def unwrap(error: BaseException) -> BaseException:
    """The exception itself, or of a group's the first that flowstream raised on purpose."""
    found = list(leaves(error))
    return next((leaf for leaf in found if is_a(leaf, FlowstreamError)), found[0])


def _passing_on(declaration: Declaration) -> Declared:
    """The processor of a pipeline that declares none: it hands every message to the batcher."""

    async def pass_on(message: Message[Any]) -> None: ...

    payload = declaration.first.signature.payload
    signature = Signature(name="pass_on", is_async=True, payload=payload, resource=None)
    return Declared(pass_on, signature, ProcessorOptions())


async def _nothing_held(error: BaseException) -> None:
    return None


def _bounded(name: str, manager: Any) -> Any:
    """The exit of a lifespan, which has CLOSE_GRACE seconds, also in a run that is cancelled."""

    async def leave(*raised: Any) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_GRACE) as scope:
            await manager.__aexit__(*raised)
        if scope.cancelled_caught:
            log.error(
                "%s: lifespan did not close within %g s", name, CLOSE_GRACE,
                extra={"pipeline": name},
            )  # fmt: skip

    return leave


async def _closing(close: Any) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(COMMIT_GRACE):
        await close()
