"""One run of a pipeline: builds the stages, runs them in one task group, and ends them in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.lowlevel

from flowstream import __version__
from flowstream.errors import FlowstreamError, Halted, SourceFailed
from flowstream.pipeline import drain, story
from flowstream.pipeline.annotations import bind
from flowstream.pipeline.collector import tuned_collector
from flowstream.pipeline.context import BROKEN, CLOSE_GRACE, RunContext
from flowstream.pipeline.core import Core, log
from flowstream.pipeline.discards import Discards, Place, named
from flowstream.pipeline.halting import advise
from flowstream.pipeline.handlers import as_exception, passes, thread_handler
from flowstream.pipeline.lag import LagWatch
from flowstream.pipeline.loops import fed_back, refuse_loop, sources
from flowstream.pipeline.loopwatch import watching
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.payload import decoder
from flowstream.pipeline.ratelimit import RateLimiter
from flowstream.pipeline.stages.acknowledger import Settlement
from flowstream.pipeline.stages.batcher import Batcher
from flowstream.pipeline.stages.committer import Committer
from flowstream.pipeline.stages.disposal import Disposal
from flowstream.pipeline.stages.feed import COMMIT_GRACE, SourceFeed
from flowstream.pipeline.stages.offset_watch import OffsetWatch
from flowstream.pipeline.stages.pool import Pool
from flowstream.pipeline.stages.processor import Processors
from flowstream.pipeline.stages.router import Router
from flowstream.pipeline.statistics import RunResult
from flowstream.pipeline.watchdog import Watchdog
from flowstream.telemetry import Controlled, StageCrashed, Telemetry
from flowstream.texts import describe, is_a, leaves, plural, type_name

if TYPE_CHECKING:
    from flowstream.pipeline.declaration import Declared, Pipeline


class Run:
    """The parts of one run. Made on the event loop; `main` runs it to its end and never raises."""

    def __init__(
        self, pipeline: Pipeline, *, url: Any, environment: Any, telemetry: Telemetry | None,
        tune_gc: bool, discard: Sequence[Place] = (),
    ) -> None:  # fmt: skip
        self.pipeline = pipeline
        handlers = {
            stage.name: stage.handler.rpartition("<locals>.")[2]
            for stage in pipeline.topology().stages
        }
        self.core = core = Core(pipeline.name, pipeline.options, telemetry or Telemetry(), handlers)
        self.context = RunContext(
            pipeline.name, url=url, environment=environment, telemetry=core.telemetry,
            counts=core.counts, watched=core.watched, fail=core.fail,
        )  # fmt: skip
        self.limiter = RateLimiter(pipeline.options.rate_limit)
        self.watchdog = Watchdog(core)
        self.settlement = Settlement(core)
        self.discards = Discards(discard)
        self.offset_watch = OffsetWatch(core, self.settlement, pipeline.producer)
        self.committer = Committer(core, self.settlement, pipeline.producer, self.offset_watch)
        self.lag = LagWatch(
            core, pipeline.producer, lambda: self.feed.lanes, lambda: self.feed.paused
        )
        self.reads = [*sources(pipeline.producer)]
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
        core.stop = self._stop_taking

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
        who, core = story.said(by), self.core
        log.info(
            "pipeline %r: %s, by %s", core.name, story.control(action, detail), who,
            extra={"pipeline": core.name, "action": action, "by": who},
        )  # fmt: skip
        core.emit(Controlled(core.name, action, detail, who))

    def _stop_taking(self) -> None:
        if not self.stopping:
            self.stopping = True
            if self.core.phase == "draining":
                drain.limit(self)
        self._taking.cancel()

    # -- life

    async def main(self) -> None:
        """Open, run, drain, close. The outcome is in `result`; only cancellation gets through."""
        name = self.core.name
        log.info(
            "pipeline %r starts (flowstream %s): %s", name, __version__,
            story.declared(self.pipeline), extra={"pipeline": name, "version": __version__},
        )  # fmt: skip
        try:
            with self._everything, tuned_collector(self._tune_gc), watching(self.watchdog):
                try:
                    async with anyio.create_task_group() as keeping:
                        keeping.start_soon(self.context.keep, name=f"{self.core.name} keeper")
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
                    self.core.error = self.core.error or broken
        finally:
            if self.core.error is not None and self.reason in ("ended", "stopped"):
                self.reason = "halted" if isinstance(self.core.error, Halted) else "failed"
            self._conclude()
            ended = self.core.clock()
            self.seconds = ended - self.core.started
            self.core.enter("stopped")
            log.info(
                "pipeline %r has ended %s", name, story.ended(self),
                extra={"pipeline": name, "reason": self.reason, "seconds": round(self.seconds, 3),
                       "received": self.core.received, "unsettled": self.unsettled},
            )  # fmt: skip
            self.core.clock = lambda: ended  # a run that is over gets no older
            self.ready.set()
            self.finished.set()

    def _conclude(self) -> None:
        """What can only be said once everything is committed."""
        core, discards = self.core, self.discards
        core.failures.conclude()
        if isinstance(core.error, Halted):
            committed = self.committer.committed()
            again = [
                (stream, offset)
                for stream, offset in discards.met
                if offset > (-1 if committed.get(stream) is None else committed[stream])
            ]
            lanes = self.feed.lanes if self.opened else ()
            unstored = {lane.stream for lane in lanes if lane.ledger is None}
            advise(core.error, tuple(core.halted), again, unstored)
        for lane in self.feed.lanes if self.opened else ():
            if lane.lost:
                log.error(
                    "pipeline %r: %d messages of %r are not settled; it has no offsets to go on "
                    "from, so the next run gets them only if the source gives them again",
                    core.name, lane.lost, lane.stream,
                    extra={"pipeline": core.name, "stream": lane.stream, "lost": lane.lost},
                )  # fmt: skip
        for place, why in discards.unmet().items() if self.opened else ():
            log.warning(
                "pipeline %r: did not discard %s: %s", core.name, named(place), why,
                extra={"pipeline": core.name, "stream": place[0], "offset": place[1]},
            )  # fmt: skip

    async def _main(self) -> None:
        self._advise()
        async with AsyncExitStack() as stack:
            producer = self.pipeline.producer
            stack.push_async_callback(_closing, producer.close)
            await self.core.watched(f"{type_name(producer)}.open", producer.open(self.context))
            self.discards.check(self.core.name, producer.reads())
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
                self.core.enter("closing")
                group.cancel_scope.cancel()

    def _advise(self) -> None:
        """Log what in the declaration is hardly meant; `flowstream check` lists the same."""
        for each in self.pipeline.advice():
            self.core.warn(each.subject, str(each))

    def _check_loops(self) -> None:
        """Once more, with the partitions that only the broker knows."""
        pipeline = self.pipeline
        self.reads = [*dict.fromkeys((*self.reads, *sources(pipeline.producer)))]
        refuse_loop(pipeline.name, pipeline.options.on_failure, self.reads)
        sinks = [each.sink for each in pipeline.batchers.values() if each.sink is not None]
        for stream in fed_back(sinks, self.reads):
            log.warning(
                "pipeline %r: a sink publishes into %s, which the pipeline reads: its messages "
                "come back, without end unless a handler drops them", pipeline.name, stream,
                extra={"pipeline": pipeline.name, "stream": stream},
            )  # fmt: skip

    async def _open_resources(self, stack: AsyncExitStack) -> None:
        lifespan = self.pipeline.options.lifespan
        if lifespan is not None:
            manager = lifespan()
            self.resources = await self.core.watched("lifespan", manager.__aenter__())
            stack.push_async_exit(_bounded(self.core.name, manager))

    async def _build(self) -> None:
        pipeline, core = self.pipeline, self.core
        on_failed = pipeline.declared.get("on_failed")
        self.disposal = Disposal(
            core,
            self.settlement,
            pipeline.options.on_failure,
            None if on_failed is None else self._async("on_failed", on_failed),
            reads=self.reads,
        )
        await self.disposal.open(self.context)
        self.processors = self._build_processors()
        for name, declared in pipeline.batchers.items():
            self.batchers[name] = await self._build_batcher(declared)
        self.feed = SourceFeed(
            core, self.context, self.settlement, self.limiter, decoder=self._decoder(),
            discards=self.discards,
            forward=self.processors.put,
            reject=self._undecodable,
        )  # fmt: skip
        self.feed.flush = self._flush
        self.feed.commit = self._commit_now
        self.feed.busy_handlers = self.busy_handlers
        core.relieve = self._relieve
        if self.batchers:
            router = Router(self.batchers, self.disposal, self.processors.name)
            self.processors.forward = router.forward
        else:
            self.processors.forward = self._end_of_the_way

    def _build_processors(self) -> Processors:
        pipeline = self.pipeline
        declared = pipeline.processor_declared
        options = declared.options
        prepare = pipeline.declared.get("prepare")
        return Processors(
            self.core, options, self.settlement, self.disposal,
            handler=self._bound(declared),
            is_async=declared.signature.is_async,
            prepare=None if prepare is None else self._async("prepare", prepare),
            partition_by=options.partition_by or pipeline.options.partition_by,
            retry=pipeline.options.retry,
            redecode=self._redecode,
        )  # fmt: skip

    async def _build_batcher(self, declared: Declared) -> Batcher:
        pipeline, options = self.pipeline, declared.options
        if declared.sink is None:
            handler, is_async = self._bound(declared), declared.signature.is_async
        else:
            handler = await self.context.enter(declared.sink.writer(self.context))
            is_async = True
        return Batcher(
            self.core, options, self.settlement, self.disposal,
            handler=handler, is_async=is_async,
            inherits=self.processors.queues.partitioned,
            phase="batch" if declared.sink is None else "sink",
            retry=pipeline.options.retry,
        )  # fmt: skip

    def _bound(self, declared: Declared) -> Any:
        return bind(declared.handler, declared.signature, self.resources)

    def _async(self, name: str, declared: Declared) -> Any:
        handler = self._bound(declared)
        if declared.signature.is_async:
            return handler
        return thread_handler(handler, name, self.core.threads)

    def _decoder(self) -> Any:
        declared = self.pipeline.processor_declared
        return decoder(declared.signature.payload, handler=declared.signature.name)

    def _start(self, group: anyio.abc.TaskGroup) -> None:
        core = self.core
        group.start_soon(core.clockwork, name=f"{core.name} timers")
        group.start_soon(self.offset_watch.run, name=f"{core.name} offset watch")
        group.start_soon(self.lag.run, name=f"{core.name} lag")
        group.start_soon(self._supervised, "committer", self.committer.run, _nothing_held)
        group.start_soon(self._supervised, "disposal", self.disposal.run, self.disposal.crashed)
        for pool in self.pools:
            pool.start(group)
        self.watchdog.watch(self.pools)
        core.enter("running")
        self.opened = True
        seconds = core.clock() - core.started
        log.info(
            "pipeline %r is running, %.1f s after its start", core.name, seconds,
            extra={"pipeline": core.name, "seconds": round(seconds, 3)},
        )  # fmt: skip
        self.ready.set()

    async def _supervised(self, name: str, body: Any, crashed: Any) -> None:
        await self.core.supervise(name, body, crashed)

    async def _produce(self) -> None:
        with self._taking:
            while await self._run_producer():
                self.feed.begin_again()
                await anyio.lowlevel.checkpoint()  # what crashes at once must not keep the loop

    async def _run_producer(self) -> bool:
        """Run the producer until it ends; True where it is to be run again."""
        core, producer = self.core, self.pipeline.producer
        try:
            await producer.run(self.feed)
        except BaseException as error:
            if is_a(error, GeneratorExit) or passes(error):
                raise
            known = unwrap(error)
            if is_a(known, FlowstreamError):
                core.fail(known)
                return False
            restart = producer.resumable and core.restarts.allow(core.clock())
            if restart:
                core.crashed("producer", error, restart=True)
            else:
                core.failures.broke("producer", "crash", error)
                core.emit(StageCrashed(core.name, "producer", describe(error), False))
                core.fail(self._source_failed(error))
            return restart
        return False

    def _source_failed(self, error: BaseException) -> SourceFailed:
        failed = SourceFailed(
            f"pipeline {self.core.name!r}: its source {type_name(self.pipeline.producer)} failed "
            f"after {plural(self.core.received, 'message')}: {describe(error)}. Those are handled "
            "before the run ends, and what the source has not given is not"
        )
        failed.__cause__ = error
        return failed

    # -- between the stages

    async def _end_of_the_way(self, messages: list[Message[Any]], plain: bool) -> None:
        await self.settlement.settle(messages, "ok")

    def _undecodable(self, failures: list[Failure]) -> None:
        self.disposal.put(failures)

    def _redecode(self, message: Message[Any]) -> Any:
        decoder = self.feed.decoder
        if decoder.decode is None or not message.raw:
            return message.data
        return decoder.of(message._span.lane.codec, message.raw)

    def _flush(self, trigger: str) -> None:
        for batcher in self.batchers.values():
            batcher.flush(trigger)

    def _relieve(self) -> None:
        """Close batches early when the window is full of messages that wait in open ones."""
        if (
            self.feed.blocked
            and self.batchers
            and self.processors.idle
            and self.disposal.idle
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
        return self.core.window.messages

    @property
    def busy(self) -> bool:
        """Does a stage still have something to do?"""
        batchers_idle = all(batcher.idle for batcher in self.batchers.values())
        return not (self.processors.idle and self.disposal.idle and batchers_idle)

    def busy_handlers(self) -> list[str]:
        """Where a run is that does not end: handlers of workers, and other callbacks."""
        slots = (slot for pool in self.pools for slot in pool.slots.values() if slot.active)
        return [slot.callback or slot.name for slot in (*slots, *self.core.callbacks)]

    @property
    def unsettled(self) -> int:
        """Messages received that the next run gets again, unless they are settled yet."""
        return self.core.received - sum(self.core.counts.values())

    def result(self) -> RunResult:
        core, running = self.core, not self.finished.is_set()
        return RunResult(
            pipeline=core.name,
            reason="running" if running else self.reason,
            received=core.received,
            settled=dict(core.counts),
            failed=core.failed,
            retried=core.retried,
            unsettled=self.unsettled,
            committed=self.committer.committed(),
            seconds=core.clock() - core.started if running else self.seconds,
            error=core.error,
            hung=core.threads.hung,
            discarded=tuple(self.discards.met),
            not_discarded=self.discards.unmet(),
            reasons=core.failures.reasons,
        )


def unwrap(error: BaseException) -> BaseException:
    """The exception itself, or of a group's the first that flowstream raised on purpose."""
    found = list(leaves(error))
    return next((leaf for leaf in found if is_a(leaf, FlowstreamError)), found[0])


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
