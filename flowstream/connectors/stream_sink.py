"""A stream as the end of a pipeline: batches settle once the broker has confirmed them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flowstream.client import AmqpMessage, Publisher, encode_data_all
from flowstream.connectors.encoding import encode_data
from flowstream.connectors.environment import environment_of
from flowstream.connectors.stream_producer import check_stream
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, Message, RunContext, Sink
from flowstream.telemetry import Tracer


class StreamSink(Sink):
    """Publishes each message of a batch to `stream`, in order, and waits for all confirms.

    The body is `encode(data)`: bytes and str as they are, models, dataclasses and dicts as JSON.
    A message that cannot be encoded fails alone; when the broker refuses any, the batch fails and
    may be published again (at least once). `amqp=True` wraps bodies into AMQP 1.0 messages, which
    carry the context of a trace to who consumes them.
    """

    def __init__(
        self,
        stream: str,
        *,
        encode: Callable[[Any], bytes] = encode_data,
        amqp: bool = False,
        filter_value: Callable[[bytes], str | None] | None = None,
        max_unconfirmed: int = 10_000,
    ) -> None:
        check_stream("StreamSink > stream", stream)
        if not callable(encode):
            raise ConfigurationError(f"StreamSink > encode: expected a function, got {encode!r}")
        self.stream = stream
        self.encode = encode
        self.amqp = amqp
        self.filter_value = filter_value
        self.max_unconfirmed = max_unconfirmed

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        environment = await environment_of(context)
        async with environment.publisher(
            self.stream, filter_value=self.filter_value, max_unconfirmed=self.max_unconfirmed
        ) as publisher:

            async def write(batch: Batch[Any]) -> None:
                await self._publish(publisher, batch.messages, context.telemetry.tracer)

            yield write

    async def _publish(
        self, publisher: Publisher, messages: Sequence[Message[Any]], tracer: Tracer | None
    ) -> None:
        encode = self.encode
        bodies: list[bytes] = []
        for message in messages:
            try:
                bodies.append(encode(message.data))
            except Exception as error:
                message.fail(error, retry=False)
        if self.amqp:
            bodies = encode_data_all(bodies)
        if bodies and tracer is None:
            await publisher.publish_many(bodies)
        elif bodies and tracer is not None:
            with tracer.publishing(self.stream, len(bodies)) as properties:
                if self.amqp and properties:
                    head = _section(properties)
                    bodies = [head + body for body in bodies]
                await publisher.publish_many(bodies)

    def __repr__(self) -> str:
        return f"StreamSink({self.stream!r})"


def _section(application_properties: Mapping[str, str]) -> bytes:
    """What goes before the data section of each message."""
    empty = AmqpMessage.of(b"", application_properties=application_properties).raw
    return empty.removesuffix(encode_data_all([b""])[0])
