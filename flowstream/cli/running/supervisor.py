"""Runs pipelines side by side, from the first connection to the last commit.

The first SIGINT or SIGTERM drains every pipeline within its `drain_timeout`. A second one abandons
messages in flight and commits what is settled, within `FORCE_GRACE`. A third one ends the process
at once. If a pipeline fails, the others drain, and the first error decides the exit code. The
results say what was settled and committed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import anyio
from anyio.abc import TaskGroup

from flowstream.checks import MAX_NAME
from flowstream.cli.connection.broker_choice import (
    BrokerChoice,
    Source,
    always_there,
    broker_for_run,
)
from flowstream.cli.connection.identity import identity_of
from flowstream.cli.dead_letters.live_page import LivePageDeadLetters
from flowstream.cli.event_loop import on_named_signal
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code, root_cause
from flowstream.cli.output.console import note, why
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.cli.publishing.feed import Feed, FeedPlan
from flowstream.cli.readers.other_runs import warn_of_others
from flowstream.cli.view.live_view import View
from flowstream.cli.workers.worker import Worker
from flowstream.client import Address, Environment
from flowstream.connectors import SuperStreamProducer
from flowstream.errors import FlowstreamError, StreamDoesNotExist
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, WorkerEndpoints, keep_sampling
from flowstream.pipeline import Pipeline, Place, RunningPipeline, RunResult, named
from flowstream.telemetry import Telemetry
from flowstream.texts import plural, type_name
from flowstream.tracing import Tracing
from flowstream.version import __version__

_log = logging.getLogger("flowstream.run")

FORCE_GRACE = 3.0
"""Seconds from the second signal until the process ends, even if handlers still run."""
LOOK = 0.5
"""Seconds between checks of a broker that the run started."""
NAMED = 20
"""The largest number of streams that an error names."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and how. `pipelines` is by target.

    `create` creates missing streams, which are always created with an embedded broker. `feed` is
    published beside the pipelines. `http_control` allows the live page to control them. With
    `with_parent` the run drains when its standard input ends, which is a pipe from the process that
    started it. `discard` names messages that are settled without being handled. `worker` is set in
    a worker process of a run, whose parent shows it, serves its HTTP endpoints and stops it.
    """

    pipelines: dict[str, Pipeline]
    broker: BrokerChoice
    create: bool = False
    feed: FeedPlan | None = None
    until_idle: float | None = None
    http: tuple[str, int] | None = None
    http_control: bool = False
    live: bool = False
    tune_gc: bool = True
    with_parent: bool = False
    tracing: bool = False
    discard: tuple[Place, ...] = ()
    worker: Worker | None = None


@dataclass(slots=True)
class Outcome:
    """The result of a plan: results by target, errors, and whether it was forced.

    The first of `errors` decides the exit code; others happened before everything had ended.
    `idle` are targets that --until-idle ended. `unopened` are targets that were stopped before they
    were running, `failed` those that an error ended before they were running.

    In a worker, `by` says why it ended without an error: by a "request" of the parent, a "signal",
    "idle", or because its "source" ended; `last_figures` are for the parent.
    """

    results: dict[str, RunResult] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    unopened: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)
    forced: bool = False
    by: str = "source"
    last_figures: dict[str, Any] | None = None


async def supervise(plan: Plan) -> Outcome:
    """Run a plan until every pipeline has ended."""
    return await Supervisor(plan).run()


class Supervisor:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._metrics = Metrics()
        self._board = Board()
        self._view = View(self._board, live=plan.live)
        tracer = Tracing() if plan.tracing else None
        self._telemetry = Telemetry(self._metrics, self._board, tracer=tracer)
        self._running: list[RunningPipeline] = []
        self._outcome = Outcome()
        self._signals = 0
        self._forced = anyio.Event()
        self._connection = plan.broker.connection
        self._remedy = ""
        self._check_broker = always_there
        self._feed: Feed | None = None
        self._preparing = anyio.CancelScope()
        self._opening: dict[str, anyio.CancelScope] = {}
        self._discards: dict[str, list[Place]] = {}
        self._stopping = False

    async def run(self) -> Outcome:
        """Run until every pipeline has ended."""
        self._log_start()
        async with AsyncExitStack() as stack, anyio.create_task_group() as beside:
            worker = self._plan.worker
            endpoints = None
            if worker is None:
                beside.start_soon(partial(on_named_signal, self._signalled, unheard=self._unheard))
            else:
                beside.start_soon(on_named_signal, self._signalled_as_worker)
                endpoints = WorkerEndpoints(self._monitor(), self._board, self._metrics)
                await beside.start(
                    worker.link.serve, endpoints.answer, self._commanded, worker.its_turn
                )
            beside.start_soon(self._force)
            if self._plan.with_parent:
                beside.start_soon(self._until_parent_ends)
            for place in self._plan.discard:  # an invalid one is refused before anything starts
                reader_of(place, self._declared_reads())
            if await self._prepared(stack, beside):
                if worker is not None:
                    await worker.prepared(self._plan.pipelines.values(), self._connection)
                await self._run_all(beside)
            if endpoints is not None:
                self._outcome.last_figures = endpoints.figures()
            beside.cancel_scope.cancel()
        return self._outcome

    async def _prepared(self, stack: AsyncExitStack, beside: anyio.abc.TaskGroup) -> bool:
        """Find the broker and create streams. Returns False if a signal came meanwhile."""
        with self._preparing:
            await self._broker(stack, beside)
            if self._plan.discard:
                await self._assign_discards()
        if self._preparing.cancel_called:  # there is nothing to drain
            self._outcome.unopened |= self._plan.pipelines.keys()
        return not self._preparing.cancel_called

    async def _run_all(self, beside: TaskGroup) -> None:
        """Run every pipeline to its end, with the monitor, the view and the feed beside them."""
        if self._plan.http is not None:
            await self._listen(beside, *self._plan.http)
        beside.start_soon(keep_sampling, self._board, self._metrics)
        if self._plan.worker is None:
            beside.start_soon(self._view.show)
        if self._plan.feed is not None:
            beside.start_soon(self._publish, self._plan.feed)
        for pipeline in self._plan.pipelines.values():
            self._board.expect(pipeline.name)
        async with anyio.create_task_group() as pipelines:
            for target, pipeline in self._plan.pipelines.items():
                pipelines.start_soon(self._run_one, beside, target, pipeline)

    def _log_start(self) -> None:
        pipelines = [f"{each.name!r} of {target}" for target, each in self._plan.pipelines.items()]
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        _log.info(
            "flowstream %s runs %s: Python %s, %s, process %d", __version__, ", ".join(pipelines),
            platform.python_version(), loop, os.getpid(),
            extra={"version": __version__, "pid": os.getpid()},
        )  # fmt: skip

    async def _broker(self, stack: AsyncExitStack, beside: anyio.abc.TaskGroup) -> None:
        """Find or start the broker, if one is needed or requested, and note which it is.

        Missing streams are created if that was requested.
        """
        topologies = [topology_of(pipeline) for pipeline in self._plan.pipelines.values()]
        wanted = self._plan.broker.source is Source.EMBEDDED
        if not wanted and not any(each.needs_broker for each in topologies):
            return
        worker = self._plan.worker
        used = (
            await stack.enter_async_context(broker_for_run(self._plan.broker))
            if worker is None
            else worker.broker(self._plan.broker)
        )
        for line in used.lines:
            note(line)
        self._connection, self._remedy = used.connection, used.remedy
        self._check_broker = used.check
        beside.start_soon(self._until_broker_ends)
        if self._plan.create or used.creates:
            async with self._connection.opened() as environment:
                for each in topologies:
                    for stream in each.all:
                        await _create(environment, stream, stream in each.super_streams)

    async def _until_broker_ends(self) -> None:
        """End the run when the broker that it started ends, instead of waiting for it."""
        try:
            while True:
                self._check_broker()
                await anyio.sleep(LOOK)
        except CommandError as error:
            self._failed(error)

    def _declared_reads(self) -> dict[str, Sequence[str] | None]:
        """The streams that pipelines read, by target; None if only the broker knows them."""
        return {
            target: None if isinstance(it.producer, SuperStreamProducer) else it.producer.reads()
            for target, it in self._plan.pipelines.items()
        }

    async def _assign_discards(self) -> None:
        """Assign each message of --discard to the pipeline that reads its stream."""
        reads = self._declared_reads()
        for target, pipeline in self._plan.pipelines.items():
            if isinstance(pipeline.producer, SuperStreamProducer):
                async with self._connection.opened() as environment:
                    reads[target] = await environment.partitions(pipeline.producer.stream)
        for place in self._plan.discard:
            self._discards.setdefault(reader_of(place, reads), []).append(place)

    async def _publish(self, plan: FeedPlan) -> None:
        """Publish the feed. The first signal ends it. An error of it drains the pipelines."""
        try:
            with Feed(plan) as feed:
                self._feed = feed
                async with self._connection.environment() as environment:
                    await feed.send(environment, lambda: None)
                note(
                    f"published {plural(feed.tally.messages, 'message')} to {plan.stream} (--feed)"
                )
        except Exception as error:
            self._failed(error)

    async def _listen(self, group: anyio.abc.TaskGroup, host: str, port: int) -> None:
        try:
            host, port = await group.start(self._monitor().run, host, port)
        except OSError as error:
            raise CommandError(
                f"cannot listen on {Address(host, port)}: {why(error)}; "
                "choose another address with --http HOST:PORT",
                ExitCode.USAGE,
            ) from error
        home = f"http://{Address(host, port)}"
        note(f"live page on {home}/, metrics on {home}/metrics")

    def _monitor(self) -> Monitor:
        control, letters = self._plan.http_control, self._dead_letters()
        return Monitor(self._metrics, self._board, control=control, dead_letters=letters)

    def _dead_letters(self) -> LivePageDeadLetters:
        """The dead letters of the pipelines, for the live page."""
        streams, masked = {}, set()
        for pipeline in self._plan.pipelines.values():
            stream = topology_of(pipeline).dead_letters
            if stream is not None:
                streams[pipeline.name] = stream
                if pipeline.options.mask is not None:
                    masked.add(stream)
        return LivePageDeadLetters(self._connection, streams, frozenset(masked))

    async def _run_one(self, beside: TaskGroup, target: str, pipeline: Pipeline) -> None:
        if self._stopping:  # a signal, or an error beside, was faster than the first pipeline
            self._outcome.unopened.add(target)
            return
        try:
            async with AsyncExitStack() as stack:
                self._opening[target] = stack.enter_context(anyio.CancelScope())
                running = await self._start(beside, stack, target, pipeline)
                del self._opening[target]
                self._outcome.results[target] = await self._follow(target, pipeline, running)
        except (Exception, KeyboardInterrupt) as error:
            if self._opening.pop(target, None) is not None:
                self._outcome.failed.add(target)
            self._failed(error)

    async def _start(
        self, beside: TaskGroup, stack: AsyncExitStack, target: str, pipeline: Pipeline
    ) -> RunningPipeline:
        """Start a pipeline, connected to the broker if it needs one."""
        connection = self._connection
        environment = None
        if topology_of(pipeline).needs_broker:
            name = f"flowstream {pipeline.name}".encode()[:MAX_NAME].decode(errors="ignore")
            environment = await stack.enter_async_context(
                connection.environment(name=name, telemetry=self._telemetry)
            )
            with suppress(FlowstreamError):  # it is lost at once: the run waits, and goes on
                self._board.broker = await identity_of(environment, connection.url)
        if self._plan.worker is not None:
            self._plan.worker.take_turns(pipeline, beside)
        running: RunningPipeline = await stack.enter_async_context(
            pipeline.start(
                url=None if environment is not None else connection.url,
                environment=environment,
                telemetry=self._telemetry,
                tune_gc=self._plan.tune_gc,
                discard=self._discards.get(target, []),
            )
        )
        if environment is not None:
            beside.start_soon(
                warn_of_others, environment, connection.url, pipeline, self._telemetry
            )
        return running

    async def _follow(self, target: str, pipeline: Pipeline, running: RunningPipeline) -> RunResult:
        """Wait for the result of a running pipeline."""
        self._running.append(running)
        self._board.watch(pipeline.name, running.statistics, pipeline)
        worker, idle = self._plan.worker, self._plan.until_idle
        if worker is not None and idle is not None:
            async with anyio.create_task_group() as beside:
                beside.start_soon(worker.report_idle, pipeline.name, running, idle)
                await running.wait()
                beside.cancel_scope.cancel()
        elif self._plan.until_idle is not None:
            await running.wait_idle(self._plan.until_idle)
            if not self._stopping:
                self._outcome.idle.add(target)
                self._outcome.by = "idle"
            running.stop(by=f"--until-idle (nothing arrived for {self._plan.until_idle:g} s)")
        result = await running.wait()
        if result.error is not None:
            self._failed(result.error)
        return result

    def _failed(self, error: BaseException) -> None:
        """Keep the error, and drain the other pipelines."""
        self._outcome.errors.append(self._explained(error))
        self._stop_all(f"the run, because a part of it failed with {type_name(error)}")

    def _explained(self, error: BaseException) -> BaseException:
        """The error with its remedy: for a missing stream, and for the end of the run's broker."""
        cause = root_cause(error)
        if exit_code(cause) is ExitCode.CONNECTION:
            try:
                self._check_broker()
            except CommandError as ended:
                return ended
        if not self._remedy or exit_code(cause) is not ExitCode.STREAM_MISSING:
            return error
        text, remedy, _ = str(cause).partition(";")  # the client's remedy is to create the stream
        if not remedy:  # it is another error, such as of a stream that was created again
            return error
        explained = CommandError(f"{text}; {self._remedy}", ExitCode.STREAM_MISSING)
        explained.__cause__ = error
        return explained

    def _stop_all(self, by: str) -> None:
        self._stopping = True
        if self._feed is not None:
            self._feed.stop()
        self._preparing.cancel()
        self._outcome.unopened |= self._opening.keys()
        for opening in self._opening.values():
            opening.cancel()
        for running in self._running:
            running.stop(by=by)

    async def _until_parent_ends(self) -> None:
        await anyio.wait_readable(sys.stdin)
        self._signalled("the end of the process that started the run")

    def _signalled_as_worker(self, by: str) -> None:
        """A signal to a worker itself drains it. Its parent forces it, and rolls at SIGHUP.

        A supervisor may signal every process of the run. The worker must not count that twice.
        """
        if by != "SIGHUP" and not self._signals:
            self._signals, self._outcome.by = 1, "signal"
            self._stop_all(by)

    def _commanded(self, what: str, by: str) -> None:
        """What the parent of a worker says: drain or abort."""
        if not self._signals:
            self._signals, self._outcome.by = 1, "request"
            self._stop_all(by)
        if what == "abort" and self._signals == 1:
            self._signals, self._outcome.forced = 2, True
            self._forced.set()

    def _signalled(self, by: str) -> None:
        self._signals += 1
        if self._signals == 1:
            self._outcome.by = "signal"
            with suppress(OSError):  # the terminal may be closed
                note(
                    "draining: received messages are finished and committed; repeat to end at once"
                )
            self._stop_all(by)
        elif self._signals == 2:
            self._outcome.forced = True
            self._forced.set()
        else:
            self._end_at_once()

    def _unheard(self, nth: int, still: Callable[[], bool]) -> None:
        """In a thread, after a signal that the blocked event loop does not receive."""
        if nth == 1:
            note("a handler blocks the event loop, so nothing drains; repeat to end at once")
            return
        if nth == 2:
            time.sleep(FORCE_GRACE)
        if still():
            self._end_at_once()

    async def _force(self) -> None:
        """After the second signal, abandon messages in flight, then end the process."""
        await self._forced.wait()
        for running in self._running:
            running.abort(by="a second signal")
        await anyio.sleep(FORCE_GRACE)
        note(f"a handler did not return within {FORCE_GRACE:g} s: ending the process without it")
        self._end_at_once()

    def _end_at_once(self) -> NoReturn:
        with suppress(OSError):  # the terminal may be closed
            self._view.leave()
        os._exit(ExitCode.FORCED)


def reader_of(place: Place, reads: Mapping[str, Sequence[str] | None]) -> str:
    """The target that reads the stream of a message; `reads` has None for unknown streams."""
    stream = place[0]
    readers = [target for target, streams in reads.items() if streams and stream in streams]
    unknown = [target for target, streams in reads.items() if streams is None]
    candidates = readers or unknown
    if len(candidates) == 1:
        return candidates[0]
    option = f"--discard {named(place)}"
    if candidates:
        raise CommandError(
            f"{option}: several pipelines may read {stream!r} ({', '.join(candidates)}); run only "
            "the one that should discard the message",
            ExitCode.USAGE,
        )
    known = sorted({name for streams in reads.values() for name in streams or ()})
    listed = f"{', '.join(known[:NAMED])}{' ...' if len(known) > NAMED else ''}"
    raise CommandError(
        f"{option}: no pipeline of this run reads the stream {stream!r}; they read {listed}",
        ExitCode.USAGE,
    )


async def _create(environment: Environment, stream: str, is_super: bool) -> None:
    """Create a missing stream or super stream, with a note. Raises CommandError if one of the
    other kind has its name."""
    try:
        partitions = await environment.partitions(stream)
    except StreamDoesNotExist:
        partitions = []
    exists = await environment.stream_exists(stream)
    if exists if is_super else partitions:
        kinds = ("stream", "super stream") if is_super else ("super stream", "stream")
        raise CommandError(
            f"--create: {stream} is a {kinds[0]}, but a pipeline uses it as a {kinds[1]}",
            ExitCode.DECLARATION,
        )
    if exists or partitions:
        return
    if is_super:
        await environment.create_super_stream(stream, exist_ok=True)
        partitions = await environment.partitions(stream)
        note(f"created the super stream {stream}: {', '.join(partitions)}")
    else:
        await environment.create_stream(stream, exist_ok=True)
        note(f"created the stream {stream}")
