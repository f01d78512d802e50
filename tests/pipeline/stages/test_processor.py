"""What handlers may do: change, fail, drop, route; and what happens when they do it wrong."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager

import anyio
import pytest

from flowstream.errors import Halted
from flowstream.pipeline import (
    Batch,
    Drop,
    Failure,
    Halt,
    IterableProducer,
    Message,
    Pipeline,
    Sink,
)
from flowstream.telemetry import Failed, Settled
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of

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
    assert {f.reason for f in failures} == {"one", "ValueError: three", "'four'"}
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


async def test_a_cancellation_that_comes_from_within_fails_the_message():
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 5:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep(1)
        if n_of(message) == 6:
            with anyio.fail_after(0.5):
                await anyio.sleep(1)
        if n_of(message) == 7:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 5)
                raise ValueError("in a group")

    pipeline = pipeline_of(10, on_failure=Drop())
    pipeline.processor(handle)
    assert (await pipeline.run()).settled == {"ok": 8, "discarded": 2}


async def coroutine():
    pass


@pytest.mark.parametrize("kind", [0, 1], ids=["async", "def"])
@pytest.mark.parametrize(
    "returned",
    [lambda: Message.new({}), coroutine, lambda: (c for c in "")],
    ids=["message", "coroutine", "generator"],
)
async def test_returns_that_cannot_be_meant_fail_the_message(kind, returned):
    pipeline = pipeline_of(10, on_failure=Drop())
    pipeline.processor(kinds(lambda m: returned() if n_of(m) == 3 else m)[kind])
    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}


@pytest.mark.parametrize("kind", ["async", "def"])
@pytest.mark.parametrize("answer", ["batch", "none", "messages", "few", "number", "coroutine"])
async def test_what_batch_handlers_return(kind, answer):
    def handle(batch):
        return {
            "batch": lambda: batch, "none": lambda: None, "messages": lambda: batch.messages,
            "few": lambda: batch.messages[:1], "number": lambda: 10, "coroutine": coroutine,
        }[answer]()  # fmt: skip

    async def as_async(batch: Batch) -> object:
        return handle(batch)

    def as_sync(batch: Batch) -> object:
        return handle(batch)

    failures = []
    pipeline = pipeline_of(10, on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.batcher(size=5)(as_async if kind == "async" else as_sync)
    pipeline.on_failed(lambda failure: failures.append(failure))
    outcome = "ok" if answer in ("batch", "none") else "discarded"
    assert (await pipeline.run()).settled == {outcome: 10}
    assert {f.phase for f in failures} <= {"batch"}
    assert [f.reason for f in failures if "it returns nothing" not in f.reason] == []


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_batch_handlers_fail_all_or_some(kind):
    def handle(batch):
        batch.messages.pop()  # whatever is done to the list, every message settles
        if n_of(batch.messages[0]) == 20:
            raise ValueError("all")
        batch.messages[1].fail("some")
        batch.messages[2].drop()

    async def as_async(batch: Batch) -> None:
        handle(batch)

    def as_sync(batch: Batch) -> None:
        handle(batch)

    pipeline = pipeline_of(30, on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.batcher(size=10)(as_async if kind == "async" else as_sync)
    result = await pipeline.run()
    assert result.settled == {"ok": 16, "dropped": 2, "discarded": 12}
    assert result.failed == 12


async def test_routing_to_named_batchers_and_to_an_unknown_one():
    got: dict[str, list[int]] = {"eu": [], "default": []}
    failures = []
    pipeline = pipeline_of(20, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        if n_of(message) % 2:
            message.to("eu")
        if n_of(message) == 4:
            message.to("mars")

    for name in got:

        @pipeline.batcher(name, size=4)
        async def store(batch: Batch[dict]) -> None:
            got[batch.batcher].extend(n_of(m) for m in batch)

    pipeline.on_failed(lambda failure: failures.append(failure))
    assert (await pipeline.run()).settled == {"ok": 19, "discarded": 1}
    assert got == {"eu": list(range(1, 20, 2)), "default": [n for n in range(0, 20, 2) if n != 4]}
    assert "no batcher named 'mars'; there are 'eu', 'default'" in failures[0].reason


async def test_the_only_batcher_takes_what_is_not_routed():
    pipeline = pipeline_of(10)
    pipeline.processor(kinds(lambda m: None)[0])
    got = []

    @pipeline.batcher("eu", size=4)
    async def store(batch: Batch[dict]) -> None:
        got.append((batch.size, batch.trigger))

    await pipeline.run()
    assert got == [(4, "size"), (4, "size"), (2, "drain")]


async def test_batch_keys_and_flush():
    got = []
    pipeline = pipeline_of(12)

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=n_of(message) % 3, flush=n_of(message) == 4)

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None:
        got.append((batch.key, [n_of(m) for m in batch], batch.trigger))

    assert (await pipeline.run()).settled == {"ok": 12}
    assert (1, [1, 4], "flush") in got
    assert (0, [0, 3, 6], "size") in got
    assert all(n % 3 == key for key, ns, _ in got for n in ns)


async def test_a_message_in_several_batchers_settles_when_all_are_done():
    producer = MemoryStream(numbers(3))
    pipeline = Pipeline("test", producer, on_failure=Drop(), commit_every=1)
    release = anyio.Event()
    done = []

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to("a", "b")

    @pipeline.batcher("a", size=1)
    async def first(batch: Batch[dict]) -> None:
        done.append("a")
        batch.messages[0].fail("only here")

    @pipeline.batcher("b", size=1)
    async def second(batch: Batch[dict]) -> None:
        assert batch.messages[0].failed is None
        await release.wait()
        done.append("b")

    async with pipeline.start() as running:
        while len(done) < 3:
            await anyio.sleep(0.1)
        await anyio.sleep(20)
        assert running.statistics().settled == {}
        assert producer.commits == []
        release.set()
        result = await running.wait()
    assert result.settled == {"discarded": 3}
    assert result.received == 3


async def test_settle_acknowledges_before_the_end():
    producer = MemoryStream(numbers(10))
    pipeline = Pipeline("test", producer, commit_every=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        message.settle()
        message.settle()

    @pipeline.batcher(size=10)
    async def store(batch: Batch[dict]) -> None:
        raise ValueError("too late to matter for the offset")

    with pytest.raises(Halted):
        await pipeline.run()
    assert producer.stored == {"orders": 9}


async def test_prepare_sees_slices_and_its_mistakes_fail_them():
    seen = []
    pipeline = pipeline_of(100, on_failure=Drop())
    pipeline.processor(concurrency=2)(kinds(lambda m: None)[0])

    @pipeline.prepare
    def prepare(messages: list[Message[dict]]) -> object:
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


async def test_on_failed_chooses_the_policy_of_one_message():
    producer = MemoryStream(numbers(20))
    pipeline = Pipeline("test", producer, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) in (3, 5, 11):
            raise ValueError("x")

    @pipeline.on_failed
    async def choose(failure: Failure) -> object:
        n = failure.message.data["n"]
        if n == 5:
            raise RuntimeError("on_failed itself fails")
        return {3: None, 11: Halt()}[n]

    with pytest.raises(Halted) as caught:
        await pipeline.run()
    assert caught.value.offset == 11
    assert producer.stored == {"orders": 10}


async def test_handlers_get_the_resources_of_the_lifespan():
    events = []

    @asynccontextmanager
    async def lifespan():
        events.append("open")
        yield {"db": 1}
        events.append("close")

    pipeline = pipeline_of(4, lifespan=lifespan)

    @pipeline.processor
    async def handle(message: Message[dict], db: dict[str, int]) -> None:
        assert db == {"db": 1}

    @pipeline.batcher(size=2)
    def store(batch: Batch[dict], db: dict[str, int]) -> None:
        events.append(f"batch {db['db']}")

    await pipeline.run()
    assert events == ["open", "batch 1", "batch 1", "close"]


async def test_a_sink_is_a_batcher_whose_failures_have_their_own_phase():
    written, failures = [], []

    class List(Sink):
        @asynccontextmanager
        async def writer(self, context):
            async def write(batch):
                if n_of(batch.messages[0]) == 4:
                    raise ConnectionError("gone")
                written.extend(batch.data)

            yield write

    pipeline = pipeline_of(8, on_failure=Drop())
    pipeline.processor(kinds(lambda m: None)[0])
    pipeline.sink("out", List(), size=4)
    pipeline.on_failed(lambda failure: failures.append(failure))
    assert (await pipeline.run()).settled == {"ok": 4, "discarded": 4}
    assert {f.phase for f in failures} == {"sink"}
    assert written == [{"n": n} for n in range(4)]


@pytest.mark.parametrize(
    "items",
    [lambda: ["a", "b"], lambda: [b"a", b"b"], lambda: iter(["a", "b"]), lambda: (c for c in "ab")],
)
async def test_iterables_of_text_are_decoded(items):
    got = []
    pipeline = Pipeline("test", IterableProducer(items()))

    @pipeline.processor
    async def handle(message: Message[str]) -> None:
        got.append(message.data)

    result = await pipeline.run()
    assert got == ["a", "b"]
    assert (result.reason, result.committed) == ("ended", {})


async def test_iterables_of_objects_are_the_data():
    got = []

    async def items():
        for n in range(3):
            yield {"n": n}

    for source in (items(), [{"n": 0}, {"n": 1}, b'{"n": 2}']):
        pipeline = Pipeline("test", IterableProducer(source))

        @pipeline.processor
        async def handle(message: Message[dict]) -> None:
            got.append(n_of(message))

        await pipeline.run()
    assert got == [0, 1, 2, 0, 1, 2]


async def test_events_account_for_every_message():
    recorder = Recorder()
    pipeline = pipeline_of(100, on_failure=Drop())
    pipeline.processor(concurrency=4)(
        kinds(lambda m: m.fail("no") if n_of(m) % 10 == 0 else None)[0]
    )

    @pipeline.batcher(size=9)
    async def store(batch: Batch[dict]) -> None: ...

    await pipeline.run(telemetry=recorder.telemetry)
    settled: dict[str, int] = {}
    for event in recorder.of(Settled):
        settled[event.outcome] = settled.get(event.outcome, 0) + event.messages
    assert settled == {"ok": 90, "discarded": 10}
    assert sum(event.messages for event in recorder.of(Failed)) == 10
