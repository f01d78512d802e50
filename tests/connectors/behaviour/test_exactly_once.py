"""Runs that die at any effect, until one ends: each output is there once, in the order of its
source partition.

`Mortal` is an environment in memory that counts its effects (publishing, storing offsets) and dies
before or after one of them: nothing that the run does afterwards has an effect. The next run has
other numbers of workers, other sizes of batches, and other luck with retries.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from flowstream import (
    Backoff,
    DeadLetter,
    Message,
    Pipeline,
    Retry,
    RunningPipeline,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.client import AmqpMessage
from flowstream.testing import MemoryEnvironment, run_virtual

PATIENCE = 10_000.0
"""Virtual seconds after which something hangs."""
ACTIONS = ("a", "a", "a", "a", "b", "ab", "drop", "dead", "slow", "retry", "two", "refused", "none")
EFFECTS = ("send_many", "publish_many", "store_offset", "store_offset_verified", "store_beginning")


class Died(Exception):
    """The process is dead: it has no effect any more."""


class Mortal:
    """An environment that dies at an effect: `dies_at` counts from 0, None never."""

    def __init__(self, memory: MemoryEnvironment, dies_at: int | None, *, before: bool) -> None:
        self.memory = memory
        self.effects = 0
        self.died = anyio.Event()
        self._dies_at = dies_at
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.memory, name)
        return self._mortal(found) if name in EFFECTS else found

    def _mortal(self, effect: Any) -> Any:
        async def act(*args: Any, **options: Any) -> Any:
            if self.died.is_set():
                raise Died
            number, self.effects = self.effects, self.effects + 1
            if number == self._dies_at and self._before:
                self.died.set()
                raise Died
            result = await effect(*args, **options)
            if number == self._dies_at:
                self.died.set()
            if self.died.is_set():
                raise Died
            return result

        return act

    @asynccontextmanager
    async def publisher(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        if self.died.is_set():
            raise Died
        async with self.memory.publisher(*args, **options) as publisher:
            for name in ("send_many", "publish_many"):
                setattr(publisher, name, self._mortal(getattr(publisher, name)))
            yield publisher


@dataclass(frozen=True)
class Shape:
    """The options of one run."""

    concurrency: int = 1
    keyed: bool = False
    sink_workers: int = 1
    size: int = 3
    window: int = 20
    commit_every: int = 1
    seed: int = 0


shapes = st.builds(
    Shape,
    concurrency=st.integers(1, 4),
    keyed=st.booleans(),
    sink_workers=st.integers(1, 3),
    size=st.sampled_from([1, 3, 10]),
    window=st.sampled_from([3, 20]),
    commit_every=st.sampled_from([1, 7, 1000]),
    seed=st.integers(0, 99),
)


class World:
    """A source, and what its messages become."""

    def __init__(self, actions: Sequence[str], partitions: int) -> None:
        self.memory = MemoryEnvironment(chunk_size=4)
        self.partitions = partitions
        self.streams = ["source"]
        self.producer: Any = StreamProducer
        if partitions:
            self.streams = self.memory.super_stream("source", partitions)
            self.memory.super_stream("a", 2)
            self.producer = SuperStreamProducer
        self.actions: dict[str, list[str]] = {}
        for number, stream in enumerate(self.streams):
            theirs = self.actions[stream] = list(actions[number :: len(self.streams)])
            bodies = [{"action": it, "n": n, "of": stream} for n, it in enumerate(theirs)]
            self.memory.append(stream, bodies)

    def pipeline(self, shape: Shape) -> Pipeline:
        chance = random.Random(shape.seed)
        pipeline = Pipeline(
            "once", self.producer("source"), retry=Retry(attempts=4, backoff=Backoff(1.0)),
            on_failure=DeadLetter("dead", max_ratio=None, exactly_once=True),
            max_in_flight=shape.window, commit_every=shape.commit_every, commit_interval=2.0,
        )  # fmt: skip

        async def handle(message: Message[dict[str, Any]]) -> None:
            action = message.data["action"]
            if action == "slow":
                await anyio.sleep(chance.choice([0.1, 5.0]))
            elif action == "retry" and message.attempt <= chance.randint(0, 3):
                raise ValueError("again")
            elif action == "dead":
                raise ValueError("never")
            elif action == "drop":
                message.drop()
            message.to(*("ab" if action == "ab" else "b" if action == "b" else "a"))

        key = (lambda m: m.data["n"] % 3) if shape.keyed else None
        pipeline.processor(concurrency=shape.concurrency, partition_by=key)(handle)
        sink = StreamSink("a", exactly_once=True, encode=encode)
        if self.partitions:
            sink = StreamSink("a", exactly_once=True, encode=encode, key=lambda m: m.data["n"] % 5)
        pipeline.sink("a", sink, size=min(shape.size, shape.window),
                      concurrency=shape.sink_workers)  # fmt: skip
        pipeline.sink("b", StreamSink("b", exactly_once=True), size=min(shape.size, shape.window))
        return pipeline

    async def live(self, shape: Shape, dies_at: int | None = None, *, before: bool = True) -> int:
        """One run, until it has done everything or is dead. Returns how many effects it had."""
        mortal = Mortal(self.memory, dies_at, before=before)
        try:
            with anyio.fail_after(PATIENCE):
                async with self.pipeline(shape).start(environment=mortal) as running:
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._bury, mortal, running)
                        result = await running.wait_idle(60.0)
                        group.cancel_scope.cancel()
                    assert result.reason == "running" or mortal.died.is_set(), result.error
        except Exception:
            if not mortal.died.is_set():
                raise
        return mortal.effects

    async def _bury(self, mortal: Mortal, running: RunningPipeline) -> None:
        await mortal.died.wait()
        running.abort()

    def check(self) -> None:
        """Everything once, and in the order of the source partition."""
        targets = ["a"] if not self.partitions else self.memory.super_stream("a")
        found = [decoded(body) for target in targets for body in self.memory.stream(target).bodies]
        expected = Counter(self.outputs("a"))
        assert Counter(map(place_of, found)) == expected
        for target in [*targets, "b"]:
            bodies = [decoded(body) for body in self.memory.stream(target).bodies]
            for stream in self.streams:
                places = [place_of(it) for it in bodies if it["of"] == stream]
                assert places == sorted(places), (target, stream)
        found_b = [place_of(decoded(body)) for body in self.memory.stream("b").bodies]
        assert Counter(found_b) == Counter(self.outputs("b"))
        letters = [AmqpMessage(body).application_properties for body in
                   self.memory.stream("dead").bodies]  # fmt: skip
        dead = Counter((it["x-stream"], int(it["x-offset"]), 0) for it in letters if it is not None)
        assert dead == Counter(self.outputs("dead"))

    def outputs(self, target: str) -> list[tuple[str, int, int]]:
        """The source partition, offset and number of every output."""
        places = []
        for stream, actions in self.actions.items():
            for offset, action in enumerate(actions):
                numbers = {"two": [0, 1], "none": []}.get(action, [0])
                wants = {"b": "b", "ab": "ab", "drop": "", "dead": "dead", "refused": "dead"}
                wanted = wants.get(action, "a")
                if target == wanted or (target in "ab" and wanted == "ab"):
                    places += [(stream, offset, number) for number in numbers]
        return places


def encode(data: dict[str, Any]) -> bytes | list[bytes]:
    if data["action"] == "refused":
        raise ValueError("cannot be encoded")
    if data["action"] == "none":
        return []
    if data["action"] == "two":
        return [json.dumps({**data, "part": part}).encode() for part in range(2)]
    return json.dumps(data).encode()


def decoded(body: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(body)
    return data


def place_of(data: dict[str, Any]) -> tuple[str, int, int]:
    return data["of"], data["n"], data.get("part", 0)


@pytest.mark.parametrize("partitions", [0, pytest.param(2, marks=pytest.mark.slow)])
@given(
    actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=40),
    lives=st.lists(st.tuples(shapes, st.integers(0, 25), st.booleans()), max_size=5),
    last=shapes,
)
@pytest.mark.medium
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_output_is_there_once_however_often_a_run_dies(
    partitions: int,
    actions: list[str],
    lives: list[tuple[Shape, int, bool]],
    last: Shape,
) -> None:
    world = World(actions, partitions)

    async def main() -> None:
        for shape, dies_at, before in lives:
            await world.live(shape, dies_at, before=before)
        await world.live(last)

    run_virtual(main)
    world.check()


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("partitions", [0, 2])
def test_every_effect_of_a_run_is_a_place_to_die(partitions: int, before: bool) -> None:
    actions = [ACTIONS[number % len(ACTIONS)] for number in range(len(ACTIONS) + 3)]
    shape = Shape(concurrency=3, sink_workers=2, commit_every=5)
    effects = run_virtual(World(actions, partitions).live, shape)
    assert effects > 20
    for dies_at in range(effects):
        world = World(actions, partitions)

        async def main(world: World = world, dies_at: int = dies_at) -> None:
            await world.live(shape, dies_at, before=before)
            await world.live(Shape(concurrency=2, size=1))

        run_virtual(main)
        world.check()
