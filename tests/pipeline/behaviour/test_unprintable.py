"""Exceptions that cannot be printed fail their own message or batch, and hang nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, field_validator

from flowstream.connectors import StreamProducer
from flowstream.errors import Halted
from flowstream.pipeline import (
    Batch,
    Drop,
    FailurePolicy,
    Message,
    OpenPolicy,
    Pipeline,
    Retry,
    RunResult,
    Sink,
)
from flowstream.testing import HandledBatch, Outcome, PipelineTester
from tests.support.callbacks import Queue, Told, nothing
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of
from tests.test_texts import deep_group, hostile, no_text

pytestmark = pytest.mark.anyio
errors = pytest.mark.parametrize("make", [hostile, no_text, deep_group])


async def settled(pipeline: Pipeline) -> dict[str, int]:
    recorder = Recorder()
    with anyio.fail_after(100):
        return dict((await pipeline.run(telemetry=recorder.telemetry)).settled)


@errors
@pytest.mark.parametrize(
    "where", ["processor", "thread", "fail", "drop", "partition_by", "size", "decode", "on_failed"]
)
async def test_only_the_message_fails(make: Any, where: str, threads: None) -> None:
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 5 and where in ("processor", "on_failed"):
            raise make()
        if n_of(message) == 5 and where in ("fail", "drop"):
            getattr(message, where)(make())

    def in_a_thread(message: Message[dict]) -> None:
        if n_of(message) == 5:
            raise make()

    def key(message: Message[dict]) -> int:
        if n_of(message) == 5 and where == "partition_by":
            raise make()
        return n_of(message)

    def size(message: Message[dict], count: int) -> tuple[bool, int]:
        if n_of(message) == 5 and where == "size":
            raise make()
        return count == 3, count + 1

    bodies = numbers(20)
    if where == "decode":
        bodies[5] = b'{"n": '
    pipeline = Pipeline("test", MemoryStream(bodies), on_failure=Drop())
    pipeline.processor(concurrency=2)(in_a_thread if where == "thread" else handle)

    @pipeline.on_failed
    async def failed(failure: Any) -> None:
        assert failure.reason.encode()
        assert failure.traceback().encode() is not None
        if where == "on_failed":
            raise make()

    @pipeline.batcher(size=(0, size), partition_by=key)
    async def store(batch: Batch[dict]) -> None: ...

    outcome = "dropped" if where == "drop" else "discarded"
    assert await settled(pipeline) == {"ok": 19, outcome: 1}


@errors
@pytest.mark.parametrize("where", ["batcher", "thread", "sink"])
async def test_only_the_batch_fails(make: Any, where: str, threads: None) -> None:
    async def store(batch: Batch[dict]) -> None:
        if any(n_of(message) == 5 for message in batch):
            raise make()

    def in_a_thread(batch: Batch[dict]) -> None:
        if any(n_of(message) == 5 for message in batch):
            raise make()

    class Writing(Sink):
        @asynccontextmanager
        async def writer(self, context: Any) -> Any:
            yield store

    pipeline = pipeline_of(20, on_failure=Drop(), retry=Retry(2))
    pipeline.processor(nothing)
    if where == "sink":
        pipeline.sink("writing", Writing(), size=4)
    else:
        pipeline.batcher(size=4)(in_a_thread if where == "thread" else store)
    assert await settled(pipeline) == {"ok": 16, "discarded": 4}


@errors
async def test_results_can_be_printed(make: Any) -> None:
    pipeline = pipeline_of(StreamProducer("any"))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise ExceptionGroup("g", [make()])

    @pipeline.batcher
    async def store(batch: Batch[dict]) -> None: ...

    report = await PipelineTester(pipeline).run({"n": 0}, {"n": 1})
    for result in (report, report.run, *report, Outcome("s", 0, "ok", error=make()),
                   HandledBatch("b", (make(),), (0,), "size", make(), None, 1, make()),
                   RunResult("p", "failed", 0, {}, 0, 0, 0, {}, 0.0, make())):  # fmt: skip
        assert repr(result).encode()
        assert len(repr(result)) < 20_000


@errors
async def test_a_prepare_that_raises_fails_its_slice(make: Any) -> None:
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[1]), on_failure=Drop())
    pipeline.processor(nothing)

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        if any(n_of(message) == 5 for message in messages):
            raise make()

    found = await settled(pipeline)
    assert found["discarded"] >= 1
    assert sum(found.values()) == 20


@errors
@pytest.mark.parametrize("where", ["acknowledger", "policy"])
async def test_what_cannot_be_settled_halts(make: Any, where: str) -> None:
    class Broken(FailurePolicy):
        @asynccontextmanager
        async def open_policy(self, context: Any) -> Any:
            yield BrokenDisposer()

    class BrokenDisposer(OpenPolicy):
        async def handle(self, failures: Any) -> str:
            raise make()

    source = Queue(numbers(10), Told(make() if where == "acknowledger" else None))
    pipeline = Pipeline("test", source, on_failure=Broken())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if where == "policy":
            raise ValueError("x")

    with anyio.fail_after(100), pytest.raises(Halted) as caught:
        await pipeline.run()
    assert str(caught.value).encode()


@pytest.mark.parametrize("outcome", [None, "gone", 3, []])
async def test_a_policy_that_names_no_outcome_halts(outcome: Any) -> None:
    class Wrong(FailurePolicy):
        @asynccontextmanager
        async def open_policy(self, context: Any) -> Any:
            yield WrongDisposer()

    class WrongDisposer(OpenPolicy):
        async def handle(self, failures: Any) -> Any:
            return outcome

    producer = MemoryStream(numbers(10))
    pipeline = Pipeline("test", producer, on_failure=Wrong())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 3:
            raise ValueError("x")

    with pytest.raises(Halted, match="handle returned"):
        await pipeline.run()
    assert producer.stored == {"orders": 2}


class Key:
    """A key that can be hashed, and not compared."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise hostile()


@pytest.mark.parametrize("size", [3, 1])
async def test_a_batch_key_that_does_not_compare_fails_its_messages(size: int) -> None:
    pipeline = pipeline_of(20, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=Key() if n_of(message) in (3, 4) else n_of(message) % 2)

    @pipeline.batcher(size=size, batch_timeout=1, concurrency=2)
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(0.1)

    found = await settled(pipeline)
    assert sum(found.values()) == 20
    assert found["ok"] >= 18


async def test_a_body_that_does_not_decode_a_second_time_is_not_tried_again() -> None:
    pipeline = pipeline_of(10, on_failure=Drop(), retry=Retry(3))
    seen: set[int] = set()

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 4:
            raise ValueError("x")

    async with pipeline.start() as running:
        intake = running._run.built.source
        decode = intake._decoder.decode
        assert decode is not None

        def once(body: bytes) -> Any:
            if hash(body) in seen:
                raise hostile()
            seen.add(hash(body))
            return decode(body)

        intake._decoder = intake._decoder._replace(decode=once)
        with anyio.fail_after(100):
            result = await running.wait()
    assert result.settled == {"ok": 9, "discarded": 1}


class Order(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, value: int) -> int:
        if value == 5:
            raise StopIteration
        return value


async def test_a_decoder_that_raises_stop_iteration_shifts_no_message() -> None:
    pipeline = pipeline_of(20, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[Order]) -> None:
        assert message.data.n == message.offset

    assert await settled(pipeline) == {"ok": 19, "discarded": 1}


class Ending:
    """Some of these end a loop that runs in C."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __hash__(self) -> int:
        if self.n == 3:
            raise StopIteration
        return self.n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ending) and other.n == self.n


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_key_that_raises_stop_iteration_costs_no_other_message(concurrency: int) -> None:
    seen: list[int] = []
    pipeline = pipeline_of(200, on_failure=Drop(), max_in_flight=50)

    @pipeline.processor(
        concurrency=concurrency, partition_by=lambda message: Ending(message.data["n"] % 10)
    )
    async def handle(message: Message[dict[str, int]]) -> None:
        seen.append(message.data["n"])

    assert await settled(pipeline) == {"ok": 180, "discarded": 20}
    assert sorted(seen) == [n for n in range(200) if n % 10 != 3]


async def test_an_observer_that_cannot_be_printed_is_detached() -> None:
    class Observer:
        def observe(self, event: Any) -> None:
            raise hostile()

        def __repr__(self) -> str:
            raise hostile()

    pipeline = pipeline_of(10)
    pipeline.processor(nothing)
    from flowstream.telemetry import Telemetry

    assert (await pipeline.run(telemetry=Telemetry(Observer()))).settled == {"ok": 10}


async def test_what_a_broken_batcher_leaves_ends_the_run_instead_of_hanging_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flowstream.errors import StageFailed
    from flowstream.pipeline.stages.batcher import Batcher

    monkeypatch.setattr(Batcher, "put", lambda self, part, *, decided: None)
    producer = MemoryStream(numbers(10))
    pipeline = Pipeline("test", producer)
    pipeline.processor(nothing)
    pipeline.batcher(size=3)(nothing_of_a_batch)
    with anyio.fail_after(100), pytest.raises(StageFailed, match="10 messages were left"):
        await pipeline.run()
    assert producer.stored == {}


async def nothing_of_a_batch(batch: Batch[dict]) -> None:
    """Leaves the batch as it is."""


async def test_a_stage_that_breaks_behind_its_handler_fails_what_it_had_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Retry):
        def delay(self, attempt: int) -> float | None:
            raise hostile()

    pipeline = pipeline_of(20, on_failure=Drop(), retry=Broken(2), max_restarts=50)

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 5:
            raise ValueError("x")

    @pipeline.batcher(size=4)
    async def store(batch: Batch[dict]) -> None:
        if any(n_of(message) == 9 for message in batch):
            raise ValueError("x")

    found = await settled(pipeline)
    assert sum(found.values()) == 20
    assert found["discarded"] >= 5
