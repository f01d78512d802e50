"""Dead letters as they are in the broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import pytest

from flowstream import (
    Backoff,
    Batch,
    DeadLetter,
    Environment,
    IterableProducer,
    Message,
    Pipeline,
    Retry,
    StreamProducer,
)
from flowstream.client import AmqpMessage, Publisher
from flowstream.connectors import DEAD_LETTER_PROPERTIES
from flowstream.testing import MemoryEnvironment
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, contents, numbers, until

pytestmark = pytest.mark.anyio
LONG = "x" * 20_000

BODIES = [
    b"\xff\x00 no JSON",
    *numbers(1, 1),
    AmqpMessage.of(numbers(1, 2)[0], application_properties={"tenant": "a"}).raw,
    *numbers(3, 3),
]
"""0 cannot be decoded, 2 raises, 3 fails itself, 5 raises in its batch; 1 and 4 are well."""

WANT: dict[int, dict[str, Any]] = {
    0: {"x-phase": "decode", "x-attempts": 1},
    2: {"x-phase": "process", "x-stage": "processor", "x-attempts": 3, "x-error": "ValueError"},
    3: {"x-phase": "process", "x-stage": "processor", "x-attempts": 1, "x-error": ""},
    5: {"x-phase": "batch", "x-stage": "load", "x-attempts": 3, "x-error": "KeyError"},
}


def failing(name: str, stream: str) -> Pipeline:
    pipeline = Pipeline(
        name,
        StreamProducer(stream),
        retry=Retry(attempts=3, backoff=Backoff(initial=0.01)),
        on_failure=DeadLetter(f"{stream}.dead"),
    )

    @pipeline.processor
    async def check(message: Message[dict[str, int]]) -> None:
        if message.data["n"] == 2:
            raise ValueError(LONG)
        if message.data["n"] == 3:
            message.fail(LONG, retry=False)

    @pipeline.batcher("load", size=1)
    async def load(batch: Batch[dict[str, int]]) -> None:
        if batch.messages[0].data["n"] == 5:
            raise KeyError("gone")

    return pipeline


async def test_the_data_of_an_object_is_in_its_letter() -> None:
    """A source that sends no bytes has no body to bury, and the message is gone afterwards."""
    items = [{"id": 1, "price": Decimal("2.50")}, ("tea", 2), "text", b"bytes", b"", range]
    pipeline = Pipeline("shop", IterableProducer(items), on_failure=DeadLetter("dead"))

    @pipeline.processor
    async def fail(message: Message[Any]) -> None:
        raise ValueError("no")

    environment = MemoryEnvironment()
    assert (await pipeline.run(environment=environment)).settled == {"dead_lettered": len(items)}
    bodies = [AmqpMessage(raw).data for raw in environment.stream("dead").bodies]
    assert bodies == [
        b'{"id":1,"price":"2.50"}', b'["tea",2]', b"text", b"bytes", b"", b"<class 'range'>",
    ]  # fmt: skip


async def test_a_letter_has_its_origin_its_reason_and_the_body_as_it_was(
    broker: Broker, stream_name: str
) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(BODIES)
        with anyio.fail_after(PATIENCE):
            async with failing("shop", stream_name).start(environment=environment) as running:
                result = await running.wait_idle(0.3)
        assert result.settled == {"ok": 2, "dead_lettered": 4}

        written = {offset: timestamp for offset, timestamp, _ in await contents(
            environment, stream_name)}  # fmt: skip
        letters = {}
        for _, _, body in await contents(environment, f"{stream_name}.dead"):
            letter = AmqpMessage(body)
            properties = dict(letter.application_properties or {})
            letters[properties["x-offset"]] = properties
            assert letter.data == BODIES[properties["x-offset"]]

    assert letters.keys() == WANT.keys()
    for offset, properties in letters.items():
        assert properties.keys() == DEAD_LETTER_PROPERTIES.keys()
        origin = {"x-pipeline": "shop", "x-stream": stream_name, "x-offset": offset}
        origin["x-timestamp"] = written[offset]
        assert properties.items() >= (origin | WANT[offset]).items()
        failed_at = datetime.fromisoformat(properties["x-failed-at"])
        assert abs(datetime.now(UTC) - failed_at) < timedelta(minutes=5)
    assert len(letters[2]["x-traceback"]) == 8192
    assert len(letters[2]["x-reason"]) == len(letters[3]["x-reason"]) == 2048
    assert letters[3]["x-traceback"] == ""
    assert "KeyError: 'gone'" in letters[5]["x-traceback"]
    assert "in load" in letters[5]["x-traceback"]
    assert "JSON" in letters[0]["x-reason"]


async def test_nothing_is_committed_past_a_letter_that_is_not_confirmed(
    broker: Broker, stream_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letter is in its stream and all others are settled: only its confirm is held back."""
    confirm = anyio.Event()
    publish_many = Publisher.publish_many
    dead = f"{stream_name}.dead"

    async def held_back(self: Publisher, bodies: Sequence[bytes], **options: Any) -> None:
        await publish_many(self, bodies, **options)
        await confirm.wait()

    pipeline = Pipeline(
        "shop", StreamProducer(stream_name), on_failure=DeadLetter(dead), commit_every=1,
        commit_interval=0.05, drain_timeout=5.0,
    )  # fmt: skip

    @pipeline.processor(concurrency=4, max_demand=1)
    async def check(message: Message[dict[str, int]]) -> None:
        if message.data["n"] == 5:
            message.fail("five")

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(20))
        monkeypatch.setattr(Publisher, "publish_many", held_back)
        async with pipeline.start(environment=environment) as running:
            await until(lambda: running.statistics().settled == {"ok": 19})
            with anyio.fail_after(PATIENCE):
                while not await environment.stream_exists(dead) or (
                    await environment.last_offset(dead) is None
                ):
                    await anyio.sleep(0.02)
            await anyio.sleep(0.3)  # six commit intervals
            assert await environment.query_offset("shop", stream_name) == 4
            confirm.set()
            await until(lambda: running.statistics().settled == {"ok": 19, "dead_lettered": 1})
            running.stop()
            await running.wait()
        assert await environment.query_offset("shop", stream_name) == 19
