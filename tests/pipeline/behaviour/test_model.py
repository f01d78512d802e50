"""Random pipelines over random streams, driven in virtual time and held against a model.

TESTS_MODEL_EXAMPLES says how many runs of 50 steps; the profile "ci" makes ten thousand steps.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from typing import Any

import anyio
import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowstream.errors import Halted
from flowstream.pipeline import (
    Backoff,
    Batch,
    Halt,
    Message,
    Pipeline,
    RateLimit,
    Retry,
    Slice,
)
from flowstream.telemetry import StageCrashed, Telemetry
from flowstream.testing import VirtualLoop
from tests.pipeline.behaviour.model import BATCHERS, Collect, LiveStream, Model, Script, Shape
from tests.support.pipelines import Recorder

STEPS = 50
USUAL = {"fast": 3, "dev": 8, "ci": 200}[hypothesis.settings.get_current_profile_name()]
EXAMPLES = int(os.environ.get("TESTS_MODEL_EXAMPLES", USUAL))

actions = st.sampled_from(["ok", "ok", "slow", "raise", "fail", "final", "drop", "early"])
scripts = st.builds(
    Script,
    tries=st.lists(actions, max_size=3).map(tuple),
    batch=st.lists(actions, max_size=3).map(tuple),
    routes=st.lists(st.sampled_from(BATCHERS), max_size=3, unique=True).map(tuple),
    partition=st.integers(0, 4),
    key=st.sampled_from([None, None, None, 0, 1]),
    flush=st.sampled_from([False, False, False, True]),
    padding=st.sampled_from([0, 0, 20, 200]),
    garbage=st.sampled_from([False] * 19 + [True]),
)
plain = st.builds(Script, partition=st.integers(0, 4))


def possible(shape: Shape) -> Shape:
    """Without a processor there is one batcher. A handler of slices sees what is behind a message
    that fails, so it keeps no order that the model could check."""
    if shape.mode == "none":
        return dataclasses.replace(shape, batchers=1, concurrency=1)
    if shape.mode == "slices":
        return dataclasses.replace(shape, partitioned=False, concurrency=max(2, shape.concurrency))
    return shape


shapes = st.builds(
    Shape,
    mode=st.sampled_from(["each", "each", "slices", "none"]),
    concurrency=st.integers(1, 4),
    partitioned=st.booleans(),
    max_demand=st.sampled_from([1, 3, 1000]),
    batchers=st.integers(0, 3),
    batch_concurrency=st.integers(1, 3),
    size=st.sampled_from([1, 3, 10]),
    max_bytes=st.sampled_from([None, None, 150]),
    timeout=st.sampled_from([0.5, 5.0, 100.0]),
    attempts=st.integers(1, 3),
    backoff=st.sampled_from([0.0, 1.0, 10.0]),
    jitter=st.sampled_from([0.0, 0.2]),
    halts=st.sampled_from([False, False, False, True]),
    window=st.sampled_from([10, 30, 1000]),
    window_bytes=st.sampled_from([250, 2000, 1 << 20]),
    commit_every=st.sampled_from([1, 10, 1000]),
    handler_seconds=st.sampled_from([0.0, 0.0, 0.1]),
    slices=st.sampled_from([(1,), (3, 20), (50,)]),
).map(possible)


class Pipelines(RuleBasedStateMachine):
    """One stream, and one pipeline after the other over it."""

    taken = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.model = Model()
        self.source: LiveStream = self.on_loop(LiveStream, self.model)
        self.running: Any = None
        self.host: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.crashes = 0

    # -- the loop

    def on_loop(self, function: Any, *args: Any) -> Any:
        async def call() -> Any:
            answer = function(*args)
            return await answer if inspect.isawaitable(answer) else answer

        return self.loop.run_until_complete(call())

    async def _start(self, shape: Shape) -> None:
        self.recorder = Recorder()
        self.crashes = 0
        self.error = self.result = None
        self.pipeline = pipeline_of(self.model, self.source, shape)
        ready = anyio.Event()

        async def host() -> None:
            with anyio.CancelScope() as self.scope:
                telemetry = Telemetry(self.recorder)
                try:
                    async with self.pipeline.start(telemetry=telemetry) as self.running:
                        ready.set()
                        self.result = await self.running.wait()
                except Exception as error:
                    self.error = error
                finally:
                    ready.set()

        self.host = self.loop.create_task(host())
        await ready.wait()

    async def _until_ended(self, seconds: float) -> None:
        with anyio.fail_after(seconds):
            while not self.host.done():
                await anyio.sleep(0.5)

    # -- rules

    @rule(some=st.lists(scripts, min_size=1, max_size=15))
    def publish(self, some: list[Script]) -> None:
        self.model.publish(some)
        self.on_loop(self.source.grown.set)

    @rule(some=st.lists(plain, min_size=20, max_size=60))
    def publish_many(self, some: list[Script]) -> None:
        self.model.publish(some)
        self.on_loop(self.source.grown.set)

    @initialize(shape=shapes)
    def first_start(self, shape: Shape) -> None:
        self.start(shape)

    @precondition(lambda self: self.running is None)
    @rule(shape=shapes)
    def start(self, shape: Shape) -> None:
        self.model.begin(shape)
        self.on_loop(self._start, shape)
        assert self.error is None

    @precondition(lambda self: self.running is not None)
    @rule(seconds=st.sampled_from([0.001, 0.3, 2.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.on_loop(anyio.sleep, seconds)

    @precondition(lambda self: self.running is not None)
    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.on_loop(self.running.pause if paused else self.running.resume)

    @precondition(lambda self: self.running is not None)
    @rule(limit=st.sampled_from([None, 0, 20, 500]))
    def limit(self, limit: int | None) -> None:
        value = None if limit is None else RateLimit(messages=limit)
        self.on_loop(setattr, self.running, "rate_limit", value)

    @precondition(lambda self: self.running is not None)
    @rule(stage=st.sampled_from(["processor", *BATCHERS]), workers=st.integers(1, 4))
    def resize(self, stage: str, workers: int) -> None:
        shape = self.model.shape
        stages = BATCHERS[: shape.batchers]
        if stage in (stages if shape.mode == "none" else ("processor", *stages)):
            before = shape.concurrency if stage == "processor" else shape.batch_concurrency
            # from or to one worker the order of the stream begins or ends: not for the model
            if shape.partitioned or (workers == 1) == (before == 1):
                self.on_loop(self.running.resize, stage, workers)

    @precondition(lambda self: self.running is not None)
    @rule(what=st.sampled_from(["processor", "batcher", "producer", "commit"]))
    def crash(self, what: str) -> None:
        """One crash in any 5 seconds at most: more would end the run, which is another test."""
        self.on_loop(anyio.sleep, 6)
        run = self.running._run
        if self.host.done():
            return
        if what == "producer":
            self.source.crash = True
            self.on_loop(self.source.grown.set)
        elif what == "commit":
            self.source.refuse_commits = 1
        elif what == "processor":
            if run.built.processors is not None:
                shape = self.model.shape
                crash_once(run.built.processors, "_run_slice" if shape.mode == "slices" else "_run")
        else:
            for batcher in run.built.batchers.values():
                crash_once(batcher.processors, "_settle")
                break

    @precondition(lambda self: self.running is not None)
    @rule(how=st.sampled_from(["stop", "stop", "abort", "cancel"]))
    def end(self, how: str) -> None:
        if how == "stop":
            self.on_loop(self.running.stop)
        elif how == "abort":
            self.on_loop(self.running.abort)
        else:
            self.on_loop(self.scope.cancel)
        self.on_loop(self._until_ended, 4000)
        self.ended(drained=how == "stop")

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish(self) -> None:
        """Left alone, everything that was published is done, or the pipeline halts."""
        self.on_loop(self.running.resume)
        self.on_loop(setattr, self.running, "rate_limit", None)
        self.on_loop(self._all_done)

    async def _all_done(self) -> None:
        with anyio.fail_after(5000):
            while not self.host.done() and self._busy():
                await anyio.sleep(5)
            await anyio.sleep(0.1)
            while self.running.phase != "running" and not self.host.done():
                await anyio.sleep(1)
        if not self.host.done():
            missing = set(range(len(self.model.bodies))) - self.model.done
            assert not missing, f"{missing} are not in flight and not done"

    def _busy(self) -> bool:
        statistics = self.running.statistics()
        to_come = len(self.model.bodies) - self.source.began - statistics.received
        return bool(to_come or statistics.in_flight)

    # -- what must hold

    @invariant()
    def nothing_is_wrong(self) -> None:
        type(self).taken += 1
        assert not self.model.wrong, self.model.wrong[:3]
        if self.source.stored is not None:
            assert set(range(self.source.stored + 1)) <= self.model.done
        if self.running is None:
            return
        if self.host.done():
            self.ended(drained=False)
            return
        statistics = self.on_loop(self.running.statistics)
        assert statistics.in_flight <= self.model.shape.window
        alone = statistics.in_flight == 1
        assert statistics.in_flight_bytes <= self.model.shape.window_bytes or alone
        settled = sum(statistics.settled.values())
        held = self.running._run.ack_tracker.abandoned
        assert settled + held <= statistics.received <= settled + held + statistics.in_flight

    def ended(self, *, drained: bool) -> None:
        """The run is over: its accounts must be those of the model."""
        self.on_loop(anyio.sleep, 0)
        self.host.result()
        run, self.running = self.running._run, None
        assert self.error is None or isinstance(self.error, Halted), self.error
        if self.result is None:
            return
        result = self.result
        assert result.error is None or isinstance(result.error, Halted), result.error
        crashed = self.recorder.of(StageCrashed)
        assert all("as it was told to" in event.error for event in crashed), crashed
        if drained and result.error is None:
            assert result.reason == "stopped"
            assert run.state.window.messages == run.state.window.bytes == 0
            assert result.unsettled == run.ack_tracker.abandoned
            if result.committed.get("orders") is not None:
                assert self.source.stored == result.committed["orders"]
            if not crashed:
                self.compare(result)
        assert not self.model.wrong, self.model.wrong[:3]

    def compare(self, result: Any) -> None:
        told: dict[str, int] = {}
        for outcome in self.model.book.outcomes.values():
            told[outcome] = told.get(outcome, 0) + 1
        assert dict(result.settled) == told, (dict(result.settled), told)

    def teardown(self) -> None:
        try:
            if self.running is not None and not self.host.done():
                self.end("stop")
            for _ in range(100):
                if len(self.model.done) == len(self.model.bodies):
                    break
                self.model.begin(Shape())
                self.on_loop(self._start, Shape())
                self.finish()
                if not self.host.done():
                    self.end("stop")
                else:
                    self.ended(drained=False)
            assert len(self.model.done) == len(self.model.bodies)
            assert not self.model.wrong, self.model.wrong[:3]
        finally:
            if self.host is not None and not self.host.done():
                self.on_loop(self.scope.cancel)
                self.on_loop(self._until_ended, 1000)
            self.loop.close()


def crash_once(stage: Any, method: str) -> None:
    """The next call of the method raises before it does anything."""

    async def crash(*args: Any, **options: Any) -> Any:
        del stage.__dict__[method]
        raise RuntimeError("the stage crashed, as it was told to")

    setattr(stage, method, crash)


def pipeline_of(model: Model, source: LiveStream, shape: Shape) -> Pipeline:
    pipeline = Pipeline(
        "model",
        source,
        retry=Retry(
            attempts=shape.attempts, backoff=Backoff(initial=shape.backoff, jitter=shape.jitter)
        ),
        on_failure=Halt() if shape.halts else Collect(model),
        partition_by=(lambda m: m.data["p"]) if shape.partitioned else None,
        max_in_flight=shape.window,
        max_in_flight_bytes=shape.window_bytes,
        commit_every=shape.commit_every,
        drain_timeout=2000.0,
        max_restarts=20,  # several crashes that were waiting may come at once
    )

    options: Any = {"concurrency": shape.concurrency, "max_demand": shape.max_demand}
    if shape.mode == "each":

        @pipeline.processor(**options)
        async def process(message: Message[dict]) -> None:
            await model.process(message)

    elif shape.mode == "slices":
        declare: Any = pipeline.processor(slices=True, **options)

        @declare
        async def process_slice(part: Slice[dict]) -> list[Any] | None:
            return await model.process_slice(part)

    async def store(batch: Batch[dict]) -> None:
        await model.store(batch)

    collect = Collect(model)

    @pipeline.on_failed
    async def choose(failure: Any) -> Any:
        return collect if failure.phase == "decode" else None

    for name in BATCHERS[: shape.batchers]:
        pipeline.batcher(
            name,
            size=min(shape.size, shape.window),
            max_bytes=shape.max_bytes,
            batch_timeout=shape.timeout,
            concurrency=shape.batch_concurrency,
        )(store)
    return pipeline


TestPipelines = pytest.mark.timeout(900)(Pipelines.TestCase)
TestPipelines.settings = hypothesis.settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
