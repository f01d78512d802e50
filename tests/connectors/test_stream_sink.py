"""StreamSink on brokers: what cannot be published fails alone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import Drop, Environment, IterableProducer, Message, Pipeline, Retry, StreamSink
from flowstream.errors import MessageTooLarge
from flowstream.pipeline import Failure
from tests.brokers.running import Broker
from tests.connectors.reading import PATIENCE, contents

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("amqp", [False, True])
async def test_what_cannot_be_encoded_or_is_too_large_fails_alone(
    broker: Broker, stream_name: str, amqp: bool
) -> None:
    def encode(data: int) -> Any:
        if data == 3:
            raise ValueError("no")
        return {4: None, 5: "text", 7: bytes(2 << 20), 8: bytes(3 << 20)}.get(data, b"%d" % data)

    failures: list[Failure] = []
    pipeline = Pipeline(
        "sunk", IterableProducer(range(10)), retry=Retry(attempts=3), on_failure=Drop()
    )

    @pipeline.processor
    async def handle(message: Message[Any]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    pipeline.sink("out", StreamSink(stream_name, encode=encode, amqp=amqp), size=10)
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        with anyio.fail_after(PATIENCE):
            result = await pipeline.run(environment=environment)
        found = [body for _, _, body in await contents(environment, stream_name)]
    assert result.settled == {"ok": 5, "discarded": 5}
    assert [body[-1:] for body in found] == [b"0", b"1", b"2", b"6", b"9"]
    kinds = {failure.message.data: type(failure.error) for failure in failures}
    assert kinds == {
        3: ValueError, 4: TypeError, 5: TypeError, 7: MessageTooLarge, 8: MessageTooLarge,
    }  # fmt: skip
    assert {(failure.phase, failure.attempts) for failure in failures} == {("sink", 1)}
