"""What handlers may do: change, fail, drop, route; and what happens when they do it wrong."""

from __future__ import annotations

import asyncio
import functools
import sys
import time

import anyio
import pytest

from flowstream.connectors import StreamProducer
from flowstream.pipeline import (
    Backoff,
    Batch,
    Drop,
    IterableProducer,
    Message,
    Pipeline,
    Retry,
    Slice,
)
from flowstream.telemetry import HandlerDone, Telemetry
from flowstream.testing import PipelineTester, run_virtual
from tests.support.callbacks import nothing
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


def kinds(function):
    """The same handler as `async def` and as `def`."""

    async def as_async(message: Message[dict]):
        return function(message)

    def as_sync(message: Message[dict]):
        return function(message)

    return as_async, as_sync


@pytest.mark.parametrize("kind", [0, 1], ids=["async", "def"])
async def test_what_a_processor_returns_becomes_the_data(kind):
    got = []
    pipeline = pipeline_of(50)
    pipeline.processor(kinds(lambda m: n_of(m) * 2 if n_of(m) % 2 else None)[kind])

    @pipeline.batcher(size=50)
    async def store(batch: Batch) -> None:
        got.extend(batch.data)

    result = await pipeline.run()
    assert result.settled == {"ok": 50}
    assert got == [n * 2 if n % 2 else {"n": n} for n in range(50)]


@pytest.mark.parametrize("kind", [0, 1], ids=["async", "def"])
async def test_failed_and_dropped_messages_go_no_further(kind):
    got, failures = [], []

    def decide(message):
        n = n_of(message)
        if n % 10 == 1:
            message.fail("one")
        elif n % 10 == 2:
            message.drop("two")
        elif n % 10 == 3:
            raise ValueError("three")
        elif n % 10 == 4:
            message.fail(KeyError("four"))

    pipeline = pipeline_of(100, on_failure=Drop())
    pipeline.processor(kinds(decide)[kind])
    pipeline.on_failed(lambda failure: failures.append(failure))

    @pipeline.batcher(size=30)
    async def store(batch: Batch) -> None:
        got.extend(n_of(m) for m in batch)

    result = await pipeline.run()
    assert result.settled == {"ok": 60, "dropped": 10, "discarded": 30}
    assert got == [n for n in range(100) if n % 10 not in (1, 2, 3, 4)]
    assert {f.reason for f in failures} == {"one", "ValueError: three", "KeyError: 'four'"}
    assert {f.phase for f in failures} == {"process"}
    trace = next(f for f in failures if "three" in f.reason).traceback()
    assert "raise ValueError" in trace


class Foreign(BaseException):
    pass


def groups():
    raise BaseExceptionGroup("both", [Foreign("a"), ValueError("b")])


def cancelled():
    raise asyncio.CancelledError


def leave():
    sys.exit(3)


@pytest.mark.parametrize("kind", [0, 1], ids=["async", "def"])
@pytest.mark.parametrize("how", [groups, cancelled, leave], ids=lambda f: f.__name__)
async def test_whatever_is_raised_fails_only_its_message(kind, how, anyio_backend):
    def handle(message):
        if n_of(message) in (0, 7, 99):
            how()

    pipeline = pipeline_of(100, on_failure=Drop())
    pipeline.processor(kinds(handle)[kind])
    assert (await pipeline.run()).settled == {"ok": 97, "discarded": 3}


async def test_prepare_sees_slices_and_its_mistakes_fail_them():
    seen = []
    pipeline = pipeline_of(100, on_failure=Drop())
    pipeline.processor(concurrency=2)(kinds(lambda m: None)[0])

    @pipeline.prepare
    def look_up(messages: list[Message[dict]]) -> object:
        seen.extend(n_of(m) for m in messages)
        if 30 in seen[-len(messages) :]:
            raise ValueError("no")
        if 70 in seen[-len(messages) :]:
            return messages[1:]
        return messages

    result = await pipeline.run()
    assert sorted(seen) == list(range(100))
    assert 2 <= result.settled["discarded"] < 100
    assert sum(result.settled.values()) == 100
    places = {(reason.phase, reason.label) for reason in result.reasons}
    assert places == {("prepare", "ValueError in look_up"), ("prepare", "TypeError in look_up")}


async def test_undecodable_bodies_fail_in_their_own_phase_and_are_not_retried():
    failures = []
    bodies = numbers(20)
    bodies[7] = b"[1"
    bodies[8] = b"2]"
    pipeline = pipeline_of(MemoryStream(bodies), on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.on_failed(lambda failure: failures.append(failure))
    assert (await pipeline.run()).settled == {"ok": 18, "discarded": 2}
    assert [(f.phase, f.attempts, f.message.offset) for f in failures] == [
        ("decode", 1, 7),
        ("decode", 1, 8),
    ]


@pytest.mark.parametrize("shape", ["async", "def", "slices", "keyed", "workers"])
async def test_what_prepare_fails_or_drops_is_not_handled(shape):
    handled, prepared = [], []
    options = {"slices": {"slices": True}, "workers": {"concurrency": 3}}.get(shape, {})
    if shape == "keyed":
        options = {"concurrency": 2, "partition_by": lambda message: n_of(message) % 2}
    pipeline = pipeline_of(12, on_failure=Drop(), retry=Retry(2, backoff=Backoff(0.01)))

    @pipeline.prepare
    async def look_up(messages: list[Message[dict]]) -> None:
        prepared.extend(map(n_of, messages))
        for message in messages:
            if n_of(message) % 4 == 1 and message.attempt == 1:
                message.fail("not found at first")
            elif n_of(message) % 4 == 2:
                message.fail("not found")
            elif n_of(message) % 4 == 3:
                message.drop("not wanted")

    def handle(messages):
        handled.extend(messages)

    if shape == "slices":

        @pipeline.processor(**options)
        async def check(part: Slice[dict]) -> None:
            handle(each["n"] for each in part.data)

    elif shape == "def":

        @pipeline.processor
        def check(message: Message[dict]) -> None:
            handle([n_of(message)])

    else:

        @pipeline.processor(**options)
        async def check(message: Message[dict]) -> None:
            handle([n_of(message)])

    result = await pipeline.run()
    assert sorted(handled) == [0, 1, 4, 5, 8, 9]
    if shape in ("async", "def", "slices"):
        assert handled == [0, 1, 4, 5, 8, 9]
    if shape == "keyed":
        assert [n for n in handled if n % 2] == [1, 5, 9]
    assert result.settled == {"ok": 6, "discarded": 3, "dropped": 3}
    assert {(it.phase, it.handler, it.text, it.attempts) for it in result.reasons} == {
        ("prepare", "look_up", "not found at first", 3),
        ("prepare", "look_up", "not found", 6),
    }


async def test_a_handler_of_slices_that_raises_fails_what_it_was_called_with():
    pipeline = pipeline_of(6, on_failure=Drop())

    @pipeline.prepare
    async def look_up(messages: list[Message[dict]]) -> None:
        for message in messages:
            if n_of(message) % 2:
                message.drop("odd")

    @pipeline.processor(slices=True, concurrency=2)
    async def check(part: Slice[dict]) -> None:
        raise ValueError("no")

    result = await pipeline.run()
    assert result.settled == {"discarded": 3, "dropped": 3}


async def test_a_prepare_that_hangs_is_ended_by_the_timeout_of_the_processor():
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[10]), on_failure=Drop())
    pipeline.processor(timeout=5)(nothing)

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        if n_of(messages[0]) == 0:
            await anyio.sleep_forever()

    result = await pipeline.run()
    assert result.settled["discarded"] >= 1
    assert result.unsettled == 0


@pytest.mark.medium
@pytest.mark.parametrize("demand", [1, 7, 1000])
async def test_no_worker_is_handed_more_than_its_demand(demand: int) -> None:
    slices: list[int] = []
    pipeline = pipeline_of(MemoryStream(numbers(3000), slices=[1000]))

    @pipeline.processor(max_demand=demand, concurrency=2)
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        slices.append(len(messages))

    assert (await pipeline.run()).settled == {"ok": 3000}
    assert sum(slices) == 3000
    assert max(slices) <= demand


@pytest.mark.parametrize("how", ["slices", "prepare"])
def test_a_query_for_many_messages_stays_one_for_many_however_long_it_takes(how: str) -> None:
    """Smaller slices would make it no shorter, so there would only be more and more queries."""
    queries: list[int] = []
    pipeline = Pipeline("asking", StreamProducer("s"), retry=Retry(2), on_failure=Drop())

    async def ask(messages: list[Message[bytes]]) -> None:
        queries.append(len(messages))
        await anyio.sleep(0.02)
        if messages[0].raw == b"bad" and len(messages) == 1:
            messages[0].fail("bad")  # also not after a slice of one message, as a retry is

    if how == "slices":

        @pipeline.processor(slices=True)
        async def handle(part: Slice[bytes]) -> None:
            await ask(part.messages)

    else:
        pipeline.prepare(ask)

        @pipeline.processor
        async def finish(message: Message[bytes]) -> None: ...

    async def run() -> None:
        async with PipelineTester(pipeline) as tester:
            for _ in range(5):
                await tester.push(b"bad")
            for _ in range(4):
                await tester.push(*[b""] * 1000)

    run_virtual(run)
    assert sum(queries) == 5 * 2 + 4000
    assert len(queries) < 5 * 2 + 40


def test_a_slow_handler_behind_a_query_for_many_gets_some_messages_at_once() -> None:
    queries: list[int] = []
    pipeline = Pipeline("asking", StreamProducer("s"))

    @pipeline.prepare
    async def ask(messages: list[Message[bytes]]) -> None:
        queries.append(len(messages))
        await anyio.sleep(0.1)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep(0.01)

    async def run() -> float:
        async with PipelineTester(pipeline) as tester:
            begin = anyio.current_time()
            await tester.push(*[b""] * 400)
            return anyio.current_time() - begin

    assert run_virtual(run) < 400 * 0.01 * 2 + 0.5
    assert max(queries) < 40


@pytest.mark.parametrize("most", [1, 40])
def test_slices_become_no_smaller_because_threads_wait_for_each_other(most: int) -> None:
    """For a place, or for Python's lock: each slice would wait again, so smaller ones wait more.

    In real time, because what waits is threads.
    """
    slices: list[HandlerDone] = []

    class Watch:
        def observe(self, event: object) -> None:
            if isinstance(event, HandlerDone):
                slices.append(event)

    pipeline = Pipeline("waiting", IterableProducer([b""] * 4000), max_threads=most)

    @pipeline.processor(concurrency=20)
    def handle(message: Message[bytes]) -> None:
        end = time.perf_counter() + 0.0001
        while time.perf_counter() < end:
            pass

    result = anyio.run(functools.partial(pipeline.run, telemetry=Telemetry(Watch())))
    assert result.settled == {"ok": 4000}
    assert len(slices) < 1000
