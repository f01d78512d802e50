"""`RunningPipeline`: watch a run, control it, wait for its end.

Methods that are not awaited may be called in any thread: in handlers, worker threads and threads of
your own. Those that are awaited (`push`, `wait`, `wait_idle`) belong to the event loop of the run.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import NoneType
from typing import Any, TypeVar

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token

from flowstream.blocks import BlockTasks
from flowstream.errors import ConfigurationError
from flowstream.pipeline.deciders.discards import parse_places
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.declaration import Declaration, Topology
from flowstream.pipeline.handlers.calls import interrupt_alone
from flowstream.pipeline.handlers.pool import inside
from flowstream.pipeline.running.report import snapshot
from flowstream.pipeline.running.run import Run
from flowstream.pipeline.running.statistics import RunResult, Statistics
from flowstream.pipeline.stages.source import check_bodies
from flowstream.pipeline.state import story
from flowstream.pipeline.state.hooks import RunHooks
from flowstream.schema import a, options_of, seconds
from flowstream.telemetry import Telemetry
from flowstream.texts import type_name

R = TypeVar("R")
IDLE = seconds(above=False)
LIMIT = a((RateLimit, NoneType), "a RateLimit(...) or None")

_running: list[RunningPipeline] = []


def running_pipelines() -> tuple[RunningPipeline, ...]:
    """All pipelines that are running in this process."""
    return tuple(_running)


class RunningPipeline:
    """A pipeline while it runs, and its result afterwards."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._thread = threading.get_ident()
        self._loop = current_token()
        self._reported = False

    @property
    def name(self) -> str:
        return self._run.state.name

    @property
    def phase(self) -> str:
        """starting, running, draining, closing or stopped."""
        return self._run.state.phase

    # -- control

    def pause(self, *, by: str | None = None) -> None:
        """Take in no more messages; those in flight continue. The log names who did it (`by`)."""
        self._call(self._set_paused, True, by)

    def resume(self, *, by: str | None = None) -> None:
        """End a pause."""
        self._call(self._set_paused, False, by)

    @property
    def paused(self) -> bool:
        return self._run.built.source.paused

    def resize(self, stage: str, concurrency: int, *, by: str | None = None) -> None:
        """Change the concurrency of "processor" or of a batcher. The order is kept."""
        self._call(self._resize, stage, concurrency, by)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current limit. Assign another one, or None for no limit."""
        return self._run.limiter.limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        self.set_rate_limit(limit)

    def set_rate_limit(self, limit: RateLimit | None, *, by: str | None = None) -> None:
        """Assign `rate_limit`, and name who did it in the log."""
        self._call(self._set_limit, limit, by)

    def stop(self, *, by: str | None = None) -> None:
        """Ask for a graceful stop, and return at once. `wait` returns when it has ended."""
        self._call(self._stop, by)

    def abort(self, *, by: str | None = None) -> None:
        """Stop without draining. What is settled is committed; the rest is replayed."""
        self._call(self._abort, by)

    async def push(self, bodies: list[Any], *, stream: str = "pushed") -> None:
        """Deliver messages of your own beside the producer's; they have no offsets to commit.

        Returns once all of them are inside `max_in_flight`. Inside a handler they are taken in
        at once, even beyond that limit, and the producer waits until there is room again.
        """
        self._check_loop("push")
        check_bodies(bodies, "push")
        run, source = self._run, self._run.built.source
        within = inside.get() is run.state
        if run.state.phase not in ("running", "draining") or (run.state.stopping and not within):
            raise ConfigurationError(f"push: pipeline {self.name!r} is stopping")
        partition = next((each for each in source.partitions if each.stream == stream), None)
        if partition is None:
            partition = source.open(stream, commits=False)
            partition.pushed = True
        elif partition.tracker is not None:
            raise ConfigurationError(f"push: {stream!r} is a stream of the producer")
        await source.deliver(partition, bodies, partition.end, None, 0, at_once=within)

    # -- state

    def statistics(self) -> Statistics:
        return self._call(snapshot, self._run)

    def topology(self) -> Topology:
        """The stages as declared. Their current concurrency is in `statistics`."""
        return self._run.declaration.topology()

    @property
    def threads(self) -> anyio.CapacityLimiter:
        """The limiter of the worker threads of `def` handlers; busy threads borrow from it."""
        return self._run.state.threads.limiter

    # -- waiting

    async def wait(self) -> RunResult:
        """Wait for the end. An error is in the result, and not raised."""
        self._check_loop("wait")
        await self._run.finished.wait()
        self._reported = True
        return self._run.result()

    async def wait_idle(self, seconds: float) -> RunResult:
        """Wait until nothing is in flight, nothing came for `seconds`, and the streams are read.

        What is settled then is committed. The pipeline is not stopped: the result has its figures
        until now, with the reason "running". Returns earlier if the run ends by itself.
        """
        IDLE.check("wait_idle > seconds", seconds)
        self._check_loop("wait_idle")
        run, state = self._run, self._run.state
        while not run.finished.is_set():
            quiet_at = max(state.arrival, state.progress) + seconds
            with anyio.move_on_after(max(quiet_at - state.clock(), seconds / 20)):
                await run.finished.wait()
            quiet = state.clock() >= max(state.arrival, state.progress) + seconds
            if quiet and not state.window.messages:
                await run.committer.commit()  # other members of a group may wait for it
                if await self._caught_up():
                    await run.committer.commit()
                    break
        self._reported = self._reported or run.finished.is_set()
        return run.result()

    async def _caught_up(self) -> bool:
        run = self._run
        if run.state.window.messages:
            return False
        positions = {
            partition.stream: partition.end - 1 if partition.end else None
            for partition in run.built.source.partitions
        }
        received = run.state.received
        producer = run.declaration.producer
        caught_up = await run.state.watched(
            f"{type_name(producer)}.caught_up", producer.caught_up(positions)
        )
        return caught_up and run.state.received == received

    # -- on the event loop

    def _call(self, function: Callable[..., R], *args: Any) -> R:
        if threading.get_ident() == self._thread:
            return function(*args)
        try:
            return anyio.from_thread.run_sync(function, *args, token=self._loop)
        except anyio.RunFinishedError as error:
            raise ConfigurationError(
                f"pipeline {self.name!r} has ended, and its event loop with it: there is nothing "
                "left to control"
            ) from error

    def _check_loop(self, name: str) -> None:
        """Raise an error if this is not the event loop of the run."""
        if current_token() != self._loop and not self._run.finished.is_set():
            raise ConfigurationError(
                f"{name}: pipeline {self.name!r} runs on another event loop; call it there, such "
                "as with anyio.from_thread.run"
            )

    def _set_paused(self, paused: bool, by: str | None) -> None:
        source = self._run.built.source
        changed, source.paused = source.paused != paused, paused
        source.reopen()
        if changed:
            self._run.controlled("pause" if paused else "resume", by=by)

    def _stop(self, by: str | None) -> None:
        self._run.stop(story.said(by))

    def _abort(self, by: str | None) -> None:
        self._run.abort(story.said(by))

    def _set_limit(self, limit: RateLimit | None, by: str | None) -> None:
        LIMIT.check("rate_limit", limit)
        changed, self._run.limiter.limit = self._run.limiter.limit != limit, limit
        self._run.built.source.reopen()
        if changed:
            self._run.controlled("rate_limit", story.limit(limit), by=by)

    def _resize(self, stage: str, concurrency: int, by: str | None) -> None:
        stages = self._run.built.resizable
        if stage not in stages:
            known = ", ".join(stages)
            raise ConfigurationError(f"resize: there is no stage {stage!r}; there are {known}")
        found = stages[stage]
        options_of(type(found.options))["concurrency"].check(concurrency, f"resize {stage!r}")
        before = found.concurrency
        found.resize(concurrency)
        detail = f"{stage!r} resized from {before} to {concurrency} workers"
        self._run.controlled("resize", detail, by=by)

    def __repr__(self) -> str:
        return f"<RunningPipeline {self.name!r} {self.phase}>"


@asynccontextmanager
async def start(
    declaration: Declaration,
    *,
    url: str | Sequence[str] | None,
    environment: Any,
    telemetry: Telemetry | None,
    tune_gc: bool,
    discard: Any,
    hooks: RunHooks | None,
    made: Callable[[RunningPipeline], None] = lambda running: None,
) -> AsyncIterator[RunningPipeline]:
    """See `Pipeline.start`. `made` is called with the run before it begins, to abort it early."""
    with interrupt_alone():
        run = Run(
            declaration, url=url, environment=environment, telemetry=telemetry, tune_gc=tune_gc,
            discard=parse_places(discard, "discard"), hooks=hooks,
        )  # fmt: skip
    running = RunningPipeline(run)
    made(running)
    raised: Exception | None = None
    try:
        with interrupt_alone():
            async with BlockTasks() as tasks:
                tasks.start_soon(run.main, name=f"pipeline {declaration.name}")
                await run.ready.wait()
                if run.opened or run.state.error is None:  # without an error it was aborted before
                    if run.opened:
                        _running.append(running)
                    try:
                        yield running
                    except Exception as error:
                        raised = error
                    run.stop("the end of its block")
    finally:
        if running in _running:
            _running.remove(running)
    if raised is not None:
        raise raised
    if run.state.error is not None and not running._reported:
        raise run.state.error
