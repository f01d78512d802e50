"""Dead letters that do not fit: what is said shrinks first, then the body stays at its source."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import Backoff, DeadLetter, Environment, Message, Pipeline, Retry, StreamProducer
from flowstream.broker import Broker as EmbeddedBroker
from flowstream.broker import Limits
from flowstream.client import AmqpMessage, Compression
from flowstream.connectors.dead_letter import dead_letter
from flowstream.pipeline import Failure
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, contents

LARGEST = 1_048_576 - 9 - 12
"""A body of so many bytes fills a frame."""
SIZES = [100, LARGEST, LARGEST - 1, 1_048_100, 1_040_000, 200, 1_030_000, 300]
HALF = "half a pair \ud800 and the rest"
LONG = "é" * 3_000


def failing(name: str, stream: str) -> Pipeline:
    pipeline = Pipeline(
        name,
        StreamProducer(stream),
        retry=Retry(attempts=2, backoff=Backoff(initial=0.001)),
        on_failure=DeadLetter(f"{stream}.dead", max_ratio=None),
    )

    @pipeline.processor
    async def check(message: Message[bytes]) -> None:
        if len(message.data) == 300:
            return
        if len(message.data) % 2:
            message.fail(HALF)
        else:
            raise ValueError(LONG + HALF)

    return pipeline


async def run(environment: Environment, stream: str) -> Any:
    with anyio.fail_after(4 * PATIENCE):
        async with failing("shop", stream).start(environment=environment) as running:
            result = await running.wait_idle(0.3)
    result.raise_for_error()
    return result


async def check(environment: Environment, stream: str, bodies: list[bytes]) -> None:
    assert (await run(environment, stream)).settled == {"ok": 1, "dead_lettered": len(bodies) - 1}
    assert not (await run(environment, stream)).settled  # nothing is held back, nothing repeated
    letters = {}
    for _, _, raw in await contents(environment, f"{stream}.dead"):
        letter = AmqpMessage(raw)
        about = dict(letter.application_properties or {})
        letters[bodies[about["x-offset"]]] = about
        body = bodies[about["x-offset"]]
        assert about["x-attempts"] == 2
        if about["x-omitted-bytes"]:
            assert len(body) > LARGEST - 1_000
            assert about["x-omitted-bytes"] == len(body)
            assert about["x-omitted-sha256"] == hashlib.sha256(body).hexdigest()
            assert letter.data == b""
        else:
            assert letter.data == body
            assert not about["x-omitted-sha256"]
        expected = HALF.replace("\ud800", "\\ud800") if len(body) % 2 else "ValueError: é"
        assert about["x-reason"].startswith(expected) or len(body) == 1_048_100
    assert letters.keys() == {body for body in bodies if len(body) != 300}


@pytest.mark.anyio
async def test_what_does_not_fit_is_buried_all_the_same(broker: Broker, stream_name: str) -> None:
    bodies = [bytes([65 + number]) * size for number, size in enumerate(SIZES)]
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(bodies)
        larger = b"z" * 2_000_001
        async with environment.publisher(
            stream_name, sub_entry_size=1, compression=Compression.GZIP
        ) as publisher:
            await publisher.publish_many([larger])
        await check(environment, stream_name, [*bodies, larger])


@pytest.mark.medium
@pytest.mark.anyio
async def test_where_the_broker_takes_larger_frames(tmp_path: Path) -> None:
    bodies = [b"a" * 1_500_001, b"b" * 300, b"c" * 2_500_000, b"d" * 100]
    limits = Limits(frame_max=4 << 20)
    async with EmbeddedBroker(port=0, data=tmp_path, limits=limits) as broker:
        async with Environment(broker.url, frame_max=0) as environment:
            await environment.create_stream("large")
            async with environment.publisher("large") as publisher:
                await publisher.publish_many(bodies)
        async with Environment(broker.url) as environment:
            await check(environment, "large", bodies)


@given(
    st.integers(0, 3_000),
    st.text(max_size=1_000),
    st.text(max_size=1_000),
    st.integers(1_500, 4_000),
)
def test_a_letter_has_no_more_than_its_room(size: int, reason: str, text: str, room: int) -> None:
    message = Message.new(None, raw=b"x" * size, stream="s" * 255, offset=2**62)
    failure = Failure(message, reason, error=ValueError(text))
    whole = dead_letter("p" * 255, failure)
    raw = dead_letter("p" * 255, failure, room)
    assert len(raw) <= room
    about = AmqpMessage(raw).application_properties or {}
    full = AmqpMessage(whole).application_properties or {}
    if len(whole) <= room:
        assert about.keys() == full.keys()
        return
    assert full["x-reason"].startswith(about["x-reason"])
    assert full["x-traceback"].endswith(about["x-traceback"])
    if about["x-omitted-bytes"]:
        assert AmqpMessage(raw).data == b""
    else:
        assert AmqpMessage(raw).data == message.raw
    if about["x-traceback"]:
        assert about["x-reason"] == full["x-reason"]
