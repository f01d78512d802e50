"""Random sequences of runs of one pipeline, with all that comes between them, held against a book.

A run begins at any place, is stopped, killed, halted or handed over, settles much or nothing;
resets, retention and restarts come between. What must hold: every message from the place last asked
for on is handled or disposed of at least once, or reported as truncated, and no stored offset is
ever past one that is not. The profile "ci" makes ten thousand steps. That each fault is found by it
is shown by test_runs_faults.py.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import anyio
import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowstream import Message
from flowstream.errors import DrainTimeout, Halted, OffsetTruncated, SourceFailed
from flowstream.testing import VirtualLoop, run_virtual
from tests.pipeline.behaviour.runs import (
    SOURCE_KINDS,
    Process,
    Script,
    Shape,
    World,
    run_failing_source,
)

STEPS = 50
USUAL = {"fast": 2, "dev": 8, "ci": 240}[hypothesis.settings.get_current_profile_name()]
EXAMPLES = int(os.environ.get("TESTS_RUNS_EXAMPLES", USUAL))
PATIENCE = 100_000.0
"""Virtual seconds after which something hangs."""

scripts = st.one_of(
    st.just(Script()),
    st.builds(
        Script,
        action=st.sampled_from(["ok", "ok", "slow", "drop", "early"]),
        fails=st.sampled_from([0, 0, 1, 2, 5]),
        how=st.sampled_from(["raise", "fail", "final"]),
        in_batch=st.booleans(),
    ),
)
shapes = st.builds(
    Shape,
    concurrency=st.integers(1, 3),
    batch=st.sampled_from([0, 0, 1, 5]),
    policy=st.sampled_from(["halt", "halt", "dead", "drop"]),
    attempts=st.integers(1, 3),
    backoff=st.sampled_from([0.5, 20.0]),
    window=st.sampled_from([1, 5, 20]),
    commit_every=st.sampled_from([1, 3, 1000]),
    on_truncated=st.sampled_from(["error", "skip"]),
)
PLACES = ["first", "first", "last", "next", "number", "age", "time"]
numbers = st.integers(0, 40)


class Runs(RuleBasedStateMachine):
    """One pipeline, run again and again, in one process or (as a group) in up to three."""

    taken = 0
    kinds: tuple[str, ...] = ("stream", "stream", "super", "group")

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.world: World
        self.tasks: dict[Process, Any] = {}
        self.halted: Any = ()

    # -- the loop

    def on_loop(self, function: Any, *args: Any) -> Any:
        async def call() -> Any:
            answer = function(*args)
            return await answer if inspect.isawaitable(answer) else answer

        return self.loop.run_until_complete(call())

    @property
    def processes(self) -> list[Process]:
        return list(self.tasks)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(self.kinds))
        self.world = self.on_loop(World, kind)
        if kind == "group":
            self.group = self.loop.create_task(self.world.keep_group())

    # -- what happens between runs, and meanwhile

    @rule(data=st.data(), some=st.lists(scripts, min_size=1, max_size=12))
    def publish(self, data: st.DataObject, some: list[Script]) -> None:
        stream = data.draw(st.sampled_from(self.world.streams))
        self.on_loop(anyio.sleep, 0.001)  # "next" is one place or another while a run finds it
        self.on_loop(self.world.publish, stream, some)

    @rule(data=st.data(), number=numbers)
    def truncate(self, data: st.DataObject, number: int) -> None:
        """Retention: whole chunks, and never the last one."""
        stream = data.draw(st.sampled_from(self.world.streams))
        self.world.truncate(stream, number)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def overtake(self, data: st.DataObject) -> None:
        """Retention passes what a slow reader has not read."""
        stream = data.draw(st.sampled_from(self.world.streams))
        self.on_loop(anyio.sleep, 0.001)
        for _ in range(3):
            self.on_loop(self.world.publish, stream, [Script("slow")] * 8)
        self.on_loop(anyio.sleep, 1)
        self.world.truncate(stream, self.world.end(stream))

    @rule()
    def mend(self) -> None:
        """From now on all handlers do what they should."""
        self.world.mended = True

    @precondition(lambda self: not self.tasks)
    @rule(data=st.data(), number=numbers, to=st.sampled_from(["first", "next", "number", "back"]))
    def reset(self, data: st.DataObject, number: int, to: str) -> None:
        """What `flowstream offsets reset` or `set` store."""
        world = self.world
        stream = data.draw(st.sampled_from(world.streams))
        first, end, stored = world.first(stream), world.end(stream), world.stored(stream)
        place = {"first": first, "next": end, "number": number}.get(to)
        if place is None:
            place = first if stored is None else stored + 1 - number
        world.reset(stream, min(max(place, first), end))

    # -- runs

    @rule(
        shape=shapes,
        place=st.sampled_from(PLACES),
        number=numbers,
        discard=st.one_of(st.just("nothing"), st.sampled_from(["halted", "any"])),
    )
    def start(self, shape: Shape, place: str, number: int, discard: str) -> None:
        """`discard`: as `--discard` does, what the last halt named, or a message at random."""
        if len(self.tasks) >= (3 if self.world.kind == "group" else 1):
            return
        named = {"nothing": (), "halted": self.halted, "any": [(self.world.streams[-1], number)]}
        self.on_loop(self._start, shape, self._offset(place, number), named[discard])

    def _offset(self, place: str, number: int) -> Any:
        if place == "number":
            return number
        if place == "age":
            return self.world.ago(number)
        return self.world.at(number) if place == "time" else place

    async def _start(self, shape: Shape, offset: Any, discard: Any = ()) -> Process:
        process = Process(self.world, replace(shape, offset=offset))
        for stream, number in discard:
            self.world.books[stream].discarded.add(number)
        self.tasks[process] = self.loop.create_task(process.main(discard=discard))
        with anyio.fail_after(PATIENCE):
            await process.ready.wait()
        return process

    @precondition(lambda self: self.tasks)
    @rule(seconds=st.sampled_from([0.0, 0.6, 4.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.on_loop(anyio.sleep, seconds)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), failing=st.booleans())
    def stop(self, data: st.DataObject, failing: bool) -> None:
        """A graceful stop, perhaps while something has just failed and may be tried again."""
        process = data.draw(st.sampled_from(self.processes))
        if failing:
            for stream in self.world.streams:
                self.on_loop(self.world.publish, stream, [Script(fails=2)])
            self.on_loop(anyio.sleep, 0.3)
        if process.running is not None:
            self.on_loop(process.running.stop)
        self.on_loop(self._ended, process)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """kill -9: nothing is drained, nothing is committed."""
        process = data.draw(st.sampled_from(self.processes))
        self.on_loop(process.kill)
        self.on_loop(self._ended, process)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def crash_source(self, data: st.DataObject) -> None:
        """The consumer raises with the next delivery: what can resume does so in the same run."""
        self.on_loop(anyio.sleep, 61)  # one in a minute at most: more would end the run
        if self.tasks:
            data.draw(st.sampled_from(self.processes)).crash = True
        for stream in self.world.streams:
            self.on_loop(self.world.publish, stream, [Script("slow"), *[Script()] * 5])

    @rule(
        kind=st.sampled_from(sorted(SOURCE_KINDS)),
        count=st.integers(0, 25),
        slice_size=st.sampled_from([1, 4, 1000]),
    )
    def read_a_failing_source(self, kind: str, count: int, slice_size: int) -> None:
        """What it gave is handled, once each, and then the run fails with its error."""
        handled, error = self.on_loop(run_failing_source, kind, count, slice_size)
        assert handled == list(range(count)), f"{kind} of {count}: {handled} were handled"
        assert isinstance(error, Exception), f"{kind} of {count}: a success"
        assert isinstance(error.__cause__, ZeroDivisionError), error

    @precondition(lambda self: self.tasks)
    @rule()
    def finish(self) -> None:
        """`--until-idle`: when nothing is left to come, nothing may be owed."""
        self.on_loop(self._idle)

    async def _idle(self) -> None:
        processes = [p for p in self.processes if p.running is not None]
        with anyio.fail_after(PATIENCE):
            for process in processes:
                await process.running.wait_idle(100.0)
        if all(process.running.phase == "running" for process in processes) and processes:
            left = self.world.left()
            assert not left, f"idle, and {left} are not handled"

    # -- what must hold

    async def _ended(self, process: Process) -> None:
        """Wait for the end of a process, and look at what it says."""
        with anyio.fail_after(PATIENCE):
            await self.tasks.pop(process)
        if process.dead:
            return
        error, result = process.error, process.result
        if error is None:
            error = result.error
        expected = [Halted, OffsetTruncated, DrainTimeout, *[SourceFailed] * process.crashed]
        assert error is None or isinstance(error, tuple(expected)), error
        if isinstance(error, Halted):
            self.halted = error.messages
        if isinstance(error, OffsetTruncated):
            assert process.shape.on_truncated == "error"
        if result is None:
            return
        left = result.received - sum(result.settled.values())
        assert error is not None or not left, f"a success with {left} messages unsettled"
        self._settled_nothing(process)

    def _settled_nothing(self, process: Process) -> None:
        """A run that settled nothing leaves what was stored, but for losses that were accepted."""
        if self.world.kind == "group" or sum(process.result.settled.values()):
            return
        for stream, before in process.before.items():
            after = self.world.stored(stream)
            if before is not None and after != before:
                lost = before + 1 < (-1 if after is None else after + 1) <= self.world.first(stream)
                assert lost, f"{stream}: {before} became {after}"

    @invariant()
    def nothing_is_wrong(self) -> None:
        if not hasattr(self, "world"):
            return
        type(self).taken += 1
        for process, task in list(self.tasks.items()):
            if task.done():
                self.on_loop(self._ended, process)
        assert not self.world.wrong, self.world.wrong[:3]

    def teardown(self) -> None:
        """Mended, and where it is asked for with the losses accepted, everything is handled."""
        try:
            if hasattr(self, "world"):
                self.world.mended = True
                for process in self.processes:
                    self.on_loop(process.running.stop)
                    self.on_loop(self._ended, process)
                self.on_loop(self._to_the_end)
                assert not self.world.wrong, self.world.wrong[:3]
        finally:
            for process in self.processes:
                self.on_loop(process.kill)
                self.on_loop(self._ended, process)
            if hasattr(self, "group"):
                self.group.cancel()
                self.on_loop(anyio.sleep, 0)
            self.loop.close()

    async def _to_the_end(self) -> None:
        process = await self._start(Shape(on_truncated="skip"), "first")
        await self._idle()
        process.running.stop()
        await self._ended(process)
        assert process.error is None, process.error
        for stream, committed in process.result.committed.items():
            stored = self.world.stored(stream)
            assert committed == stored or (committed is None and stored == -1)


def test_a_member_whose_source_breaks_hands_its_partitions_over_first() -> None:
    """What it has in flight is settled and committed before another member goes on behind it."""

    async def main() -> None:
        world = World("group")
        one, two = (Process(world, Shape(concurrency=2, policy="halt")) for _ in range(2))
        async with anyio.create_task_group() as group:
            group.start_soon(world.keep_group)
            group.start_soon(one.main)
            await one.ready.wait()
            world.publish("orders-0", [Script("slow"), Script(), Script("slow")])
            await anyio.sleep(0.5)
            group.start_soon(two.main)
            await two.ready.wait()
            one.crash = True
            world.publish("orders-0", [Script()] * 5)
            await anyio.sleep(200)
            assert isinstance(one.result.error, SourceFailed)
            two.running.stop()
            await two.running.wait()
            group.cancel_scope.cancel()
        assert not world.wrong, world.wrong
        assert not world.left()
        assert world.stored("orders-0") == 7

    run_virtual(main)


def test_a_hand_over_that_a_stop_cuts_off_is_still_made_before_another_member_begins() -> None:
    """The source has failed and hands over; the broker asks for it, too; and then comes a stop."""

    async def main() -> None:
        world, handled = World("group"), Counter[tuple[str, int]]()
        shape = Shape(policy="halt", drain_timeout=60)
        one, two = Process(world, shape), Process(world, shape)
        handling = world.handling

        def count(message: Message[Any]) -> None:
            handled[message.stream, message.offset] += 1
            handling(message)

        world.handling = count  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(world.keep_group)
            group.start_soon(one.main)
            await one.ready.wait()
            world.publish("orders-1", [Script("slow")] * 4)
            await anyio.sleep(0.5)
            one.crash = True
            world.publish("orders-0", [Script()])
            await anyio.sleep(0.1)
            group.start_soon(two.main)
            await two.ready.wait()
            await anyio.sleep(0.1)
            one.running.stop()
            await anyio.sleep(200)
            two.running.stop()
            await two.running.wait()
            group.cancel_scope.cancel()
        assert not world.wrong, world.wrong
        assert not world.left()
        assert [handled["orders-1", offset] for offset in range(4)] == [1] * 4

    run_virtual(main)


TestRuns = pytest.mark.timeout(900)(Runs.TestCase)
TestRuns.settings = hypothesis.settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
