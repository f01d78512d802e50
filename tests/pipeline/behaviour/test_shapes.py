"""Pipelines without a processor, and handlers of whole slices: what flows are columns."""

from __future__ import annotations

import threading
from array import array
from typing import Any

import anyio
import pytest

from flowstream.errors import ConfigurationError, Halted
from flowstream.pipeline import Backoff, Batch, Drop, Message, Pipeline, Retry, Slice
from flowstream.pipeline.stages.processor import Processors
from tests.support.pipelines import MemoryStream, numbers

pytestmark = pytest.mark.anyio


def pipeline_of(count: int, **options: Any) -> Pipeline:
    return Pipeline("test", MemoryStream(numbers(count), slices=[7, 100]), **options)


# -- a batcher alone


async def test_a_batcher_alone_gets_what_was_delivered_and_no_message_is_made(monkeypatch):
    pipeline, seen = pipeline_of(1000), []

    @pipeline.batcher(size=300)
    async def store(batch: Batch[dict]) -> None:
        seen.append((batch.data, batch.raw, batch.offsets, batch.size, batch.bytes))

    def made(*args: Any) -> None:
        raise AssertionError("a message was made")

    monkeypatch.setattr(Message, "__init__", made)
    result = await pipeline.run()
    assert result.settled == {"ok": 1000}
    assert result.committed == {"orders": 999}
    assert [size for *_, size, _ in seen] == [300, 300, 300, 100]
    assert [item for data, *_ in seen for item in data] == [{"n": n} for n in range(1000)]
    assert [body for _, raw, *_ in seen for body in raw] == numbers(1000)
    assert [offset for _, _, offsets, *_ in seen for offset in offsets] == list(range(1000))
    assert sum(size for *_, size in seen) == sum(map(len, numbers(1000)))


async def test_a_message_may_fail_in_a_batch_of_a_batcher_alone():
    pipeline, tries = pipeline_of(50, retry=Retry(2, Backoff(0.01)), on_failure=Drop()), []

    @pipeline.batcher(size=20)
    async def store(batch: Batch[dict]) -> None:
        tries.append(batch.attempt)
        for message in batch:
            if message.data["n"] == 33:
                message.fail("not this one")

    result = await pipeline.run()
    assert result.settled == {"ok": 49, "discarded": 1}
    assert sorted(tries) == [1, 1, 1, 2]


async def test_a_batch_that_raises_halts_a_batcher_alone_before_its_first_message():
    pipeline = pipeline_of(50)

    @pipeline.batcher(size=20)
    def store(batch: Batch[dict]) -> None:
        if batch.data[0]["n"] >= 20:
            raise ConnectionError("no database")

    with pytest.raises(Halted, match="orders@20"):
        await pipeline.run()
    assert pipeline.producer.stored == {"orders": 19}


async def test_what_does_not_decode_never_reaches_a_batcher_alone():
    bodies = numbers(30)
    bodies[7] = b"{"
    pipeline, seen = Pipeline("test", MemoryStream(bodies), on_failure=Drop()), []

    @pipeline.batcher(size=10)
    async def store(batch: Batch[dict]) -> None:
        seen.extend(batch.offsets)

    result = await pipeline.run()
    assert result.settled == {"ok": 29, "discarded": 1}
    assert seen == [n for n in range(30) if n != 7]


@pytest.mark.medium
async def test_a_size_function_that_always_raises_fails_every_message_by_itself():
    pipeline = Pipeline("test", MemoryStream(numbers(1000), slices=[1000]), on_failure=Drop())

    def wrong(message: Message[dict], so_far: int) -> tuple[bool, int]:
        raise KeyError("amount")

    @pipeline.batcher(size=(0, wrong))
    async def store(batch: Batch[dict]) -> None: ...

    assert (await pipeline.run()).settled == {"discarded": 1000}


async def test_a_batcher_alone_keeps_keys_in_order():
    pipeline = pipeline_of(400, partition_by=lambda message: message.data["n"] % 5)
    seen: list[int] = []

    @pipeline.batcher(size=9, concurrency=3)
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(0.001 * (3 - (batch.partition or 0)))
        seen.extend(batch.offsets)

    result = await pipeline.run()
    assert result.settled == {"ok": 400}
    for key in range(5):
        assert [n for n in seen if n % 5 == key] == list(range(key, 400, 5))


async def test_without_any_handler_there_is_no_pipeline():
    with pytest.raises(ConfigurationError, match="no processor and no batcher"):
        await pipeline_of(1).run()


# -- handlers of slices


def slices_of(pipeline: Pipeline, **options: Any) -> Any:
    return pipeline.processor(slices=True, **options)


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_a_handler_of_slices_gives_new_data_for_all_of_its_messages(kind):
    pipeline, stored = pipeline_of(500), []

    def doubled(part: Slice[dict]) -> list[int]:
        assert len(part) == len(part.data) == len(part.offsets) == len(part.raw)
        return [2 * item["n"] for item in part.data]

    async def as_async(part: Slice[dict]) -> list[int]:
        return doubled(part)

    def as_def(part: Slice[dict]) -> list[int]:
        return doubled(part)

    slices_of(pipeline)(as_async if kind == "async" else as_def)

    @pipeline.batcher(size=100)
    async def store(batch: Batch[Any]) -> None:
        stored.extend(batch.data)

    result = await pipeline.run()
    assert result.settled == {"ok": 500}
    assert stored == [2 * n for n in range(500)]


async def test_a_handler_of_slices_decides_about_single_messages():
    pipeline, stored = pipeline_of(100, on_failure=Drop()), {"even": [], "odd": []}

    @slices_of(pipeline)
    async def decide(part: Slice[dict]) -> None:
        for index, item in enumerate(part.data):
            if item["n"] % 10 == 3:
                part.fail(index, "a three")
            elif item["n"] % 10 == 4:
                part.drop(index, "a four")
            else:
                part.messages[index].to("odd" if item["n"] % 2 else "even")

    for name in stored:

        @pipeline.batcher(name, size=10)
        async def store(batch: Batch[dict]) -> None:
            stored[batch.batcher] += [item["n"] for item in batch.data]

    result = await pipeline.run()
    assert result.settled == {"ok": 80, "discarded": 10, "dropped": 10}
    assert [reason.text for reason in result.reasons] == ["a three"]
    kept = [n for n in range(100) if n % 10 not in (3, 4)]
    assert stored == {
        "even": [n for n in kept if n % 2 == 0],
        "odd": [n for n in kept if n % 2],
    }


async def price(item: dict) -> int:
    """Must be awaited."""
    return 7


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([1], "returned 1 items of data for"),
        ("text", "returned str"),
        (
            array("i", [7]),
            "returned array; it returns a list of new data, such as `array.tolist()`",
        ),
        (7, "returned int"),
        (lambda part: part.messages, "returned messages; it returns a list of new data"),
        (lambda part: [*part.data[1:], part.messages[0]], "returned messages; it returns"),
        (lambda part: [price(item) for item in part.data], "a coroutine, not awaited, as data"),
        (lambda part: [(n for n in item) for item in part.data], "a generator, not awaited"),
    ],
)
async def test_what_a_handler_of_slices_must_not_return_fails_the_slice(answer, reason):
    pipeline = pipeline_of(20, on_failure=Drop())

    @slices_of(pipeline, concurrency=2)
    async def wrong(part: Slice[dict]) -> Any:
        return answer(part) if callable(answer) else answer

    result = await pipeline.run()
    assert sum(result.settled.values()) == 20
    assert reason in result.reasons[0].text


def shorten(part: Slice[dict]) -> None:
    part.messages[:] = [m for m in part.messages if m.data["n"] % 2]


def take_all(part: Slice[dict]) -> None:
    while len(part):
        part.take(3)


def append_another(part: Slice[dict]) -> None:
    part.append(Message.new({"n": 99}))


def clear_columns(part: Slice[dict]) -> None:
    for column in part.columns:
        column.clear()


def reverse_and_double(part: Slice[dict]) -> list[dict]:
    part.messages.reverse()
    return [{"n": 2 * message.data["n"]} for message in part.messages]


@pytest.mark.parametrize("kind", ["columns", "rows"])
@pytest.mark.parametrize(
    "change", [shorten, take_all, append_another, clear_columns, reverse_and_double]
)
async def test_whatever_a_handler_does_to_its_slice_every_message_is_passed_on(change, kind):
    pipeline, stored = pipeline_of(20), []
    if kind == "rows" and change is clear_columns:
        pytest.skip("a slice of objects has no columns")
    if kind == "rows":

        @pipeline.prepare
        async def look(messages: list[Message[dict]]) -> None:
            """Makes objects of the messages."""

    @slices_of(pipeline)
    async def handle(part: Slice[dict]) -> Any:
        return change(part)

    @pipeline.batcher(size=20)
    async def store(batch: Batch[dict]) -> None:
        stored.extend(item["n"] for item in batch.data)

    result = await pipeline.run()
    assert result.settled == {"ok": 20}
    factor = 2 if change is reverse_and_double else 1
    assert stored == [factor * n for n in range(20)]


async def test_new_data_for_a_slice_that_the_handler_shortened_fails_it():
    pipeline = pipeline_of(20, on_failure=Drop())

    @slices_of(pipeline)
    async def handle(part: Slice[dict]) -> list[dict]:
        part.messages.clear()
        return part.data

    result = await pipeline.run()
    assert result.settled == {"discarded": 20}
    assert "to filter a message out, call drop(index)" in result.reasons[0].text


async def test_a_thread_that_makes_messages_when_its_time_is_up_hides_no_failure(monkeypatch):
    """Objects that it makes take the place of those that failed, as nobody could see otherwise."""
    pipeline, over = pipeline_of(1, on_failure=Drop()), threading.Event()
    fail_all = Processors._fail_all

    def then_the_thread_is_done(processors: Processors, worker: Any, error: BaseException) -> None:
        fail_all(processors, worker, error)
        worker.part._messages = None
        over.set()

    monkeypatch.setattr(Processors, "_fail_all", then_the_thread_is_done)

    @slices_of(pipeline, timeout=0.05)
    def handle(part: Slice[dict]) -> None:
        over.wait(10)

    result = await pipeline.run()
    assert result.settled == {"discarded": 1}


async def test_a_slice_that_raises_is_tried_again_message_by_message():
    """Nobody knows which of them it was, so each gets a try of its own."""
    pipeline = pipeline_of(200, retry=Retry(2, Backoff(0.01)), on_failure=Drop())

    @slices_of(pipeline, concurrency=2)
    async def handle(part: Slice[dict]) -> None:
        if any(item["n"] == 55 for item in part.data):
            raise ValueError("a bad one")

    result = await pipeline.run()
    assert result.settled == {"ok": 199, "discarded": 1}


@pytest.mark.parametrize("options", [{}, {"concurrency": 2, "partition_by": lambda m: 0}])
@pytest.mark.parametrize("jitter", [0, 1])
async def test_messages_that_fail_in_one_slice_are_tried_again_in_their_order(options, jitter):
    backoff = Backoff(0.01, factor=1, jitter=jitter)
    pipeline, seen = pipeline_of(7, retry=Retry(3, backoff), on_failure=Drop()), []

    @slices_of(pipeline, **options)
    async def handle(part: Slice[dict]) -> None:
        for index, message in enumerate(part.messages):
            n = message.data["n"]
            if n in (0, 3, 6) and message.attempt < 3:
                part.fail(index, "not yet")
            else:
                seen.append((n, message.attempt))

    with anyio.fail_after(10):
        result = await pipeline.run()
    assert (result.settled, result.retried) == ({"ok": 7}, 6)
    assert seen == [(1, 1), (2, 1), (4, 1), (5, 1), (0, 3), (3, 3), (6, 3)]


async def test_a_slice_that_takes_too_long_fails():
    pipeline = pipeline_of(5, on_failure=Drop())

    @slices_of(pipeline, timeout=0.05)
    async def handle(part: Slice[dict]) -> None:
        if part.offsets[0] == 0:
            await anyio.sleep(60)

    result = await pipeline.run()
    assert result.settled == {"ok": 4, "discarded": 1}
    assert result.reasons[0].error == "HandlerTimeout"


def test_slices_and_worker_processes_exclude_each_other():
    with pytest.raises(ConfigurationError, match="leave slices=True out"):

        @slices_of(pipeline_of(1), processes=True)
        def handle(part: Slice[dict]) -> None: ...


def test_a_handler_of_slices_is_annotated_as_one():
    with pytest.raises(ConfigurationError, match=r"Slice\["):

        @slices_of(pipeline_of(1))
        async def handle(message: Message[dict]) -> None: ...
