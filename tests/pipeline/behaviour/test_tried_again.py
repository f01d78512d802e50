"""What is tried again is as it was: nothing of the attempt that failed is left in a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flowstream.pipeline import Backoff, Batch, Drop, IterableProducer, Message, Retry, Slice
from tests.support.pipelines import MemoryStream, numbers, pipeline_of

pytestmark = pytest.mark.anyio

RETRY = Retry(attempts=3, backoff=Backoff(initial=0.1))
KEYS: list[Callable[[Message[Any]], Any] | None] = [None, lambda message: 1]


@pytest.mark.parametrize("partition_by", KEYS, ids=["stream", "key"])
async def test_messages_behind_a_failed_one_are_prepared_as_they_were_delivered(partition_by):
    """They were prepared before, and kept what `prepare` had made of them."""
    prepared, handled = [], []
    pipeline = pipeline_of(5, retry=RETRY, on_failure=Drop(), partition_by=partition_by)

    @pipeline.prepare
    async def look_up(messages: list[Message[Any]]) -> None:
        prepared.append(len(messages))
        for message in messages:
            message.data = json.loads(message.data)["n"]

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        if message.data == 1 and message.attempt == 1:
            raise ValueError("once")
        handled.append(message.data)

    assert (await pipeline.run()).settled == {"ok": 5}
    assert handled == [0, 1, 2, 3, 4]
    assert sum(prepared) > 5


@pytest.mark.parametrize("what", ["drop", "fail", "route", "assign", "change"])
@pytest.mark.parametrize("partition_by", KEYS, ids=["stream", "key"])
async def test_a_slice_that_raised_leaves_nothing_on_the_messages_behind(partition_by, what):
    """The handler gets them again, and decides again: a message that it had dropped was lost."""
    calls: list[int] = []
    stored: dict[str, list[Any]] = {"default": [], "other": []}
    pipeline = pipeline_of(5, retry=RETRY, on_failure=Drop(), partition_by=partition_by)

    @pipeline.processor(slices=True)
    async def handle(part: Slice[dict]) -> None:
        calls.append(len(part))
        if len(calls) > 1:
            return
        match what:
            case "drop":
                part.drop(3)
            case "fail":
                part.fail(3, retry=False)
            case "route":
                part.messages[3].to("other")
            case "assign":
                part.messages[3].data = {"n": -1}
            case "change":
                part.data[3]["n"] = -1
        raise ValueError("the first call")

    for name in stored:

        @pipeline.batcher(name)
        async def store(batch: Batch[dict]) -> None:
            stored[batch.batcher] += [item["n"] for item in batch.data]

    assert (await pipeline.run()).settled == {"ok": 5}
    assert calls[0] == 5
    assert stored == {"default": [0, 1, 2, 3, 4], "other": []}


@pytest.mark.parametrize("payload", [bytes, dict], ids=["bytes", "objects"])
async def test_data_that_is_not_decoded_is_as_it_was_delivered(payload):
    """Without a decoder, a retry had what the first attempt had assigned."""
    items: list[Any] = [b"0", b"1"] if payload is bytes else [{"n": 0}, {"n": 1}]
    source = MemoryStream(items) if payload is bytes else IterableProducer(items)
    pipeline = pipeline_of(source, retry=RETRY, on_failure=Drop())
    got = []

    async def handle(message):
        got.append(message.data)
        message.data = f"seen {message.data}"
        if message.attempt == 1:
            raise ValueError("once")

    handle.__annotations__ = {"message": Message[payload], "return": None}
    pipeline.processor(handle)
    assert (await pipeline.run()).settled == {"ok": 2}
    assert got == [items[0], items[0], items[1], items[1]]


@pytest.mark.parametrize("processor", [False, True])
@pytest.mark.parametrize("kept", [False, True], ids=["all", "one"])
async def test_a_batch_has_the_data_that_the_processor_left(processor, kept):
    """A batch handler that had replaced the data replaced it a second time."""
    pipeline = pipeline_of(MemoryStream(numbers(4)), retry=RETRY, on_failure=Drop())
    stored: list[Any] = []
    if processor:

        @pipeline.processor
        async def route(message: Message[dict]) -> None:
            message.to("default")

    @pipeline.batcher(size=4)
    async def store(batch: Batch[dict]) -> None:
        for message in batch:
            message.data = message.data["n"]
        if batch.attempt == 1:
            if not kept:
                raise ConnectionError("the database is away")
            batch.messages[2].fail("locked")
        stored.extend(message.data for message in batch if message.failed is None)

    assert (await pipeline.run()).settled == {"ok": 4}
    assert stored == ([0, 1, 3, 2] if kept else [0, 1, 2, 3])
