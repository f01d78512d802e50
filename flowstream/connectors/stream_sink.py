"""A stream as the end of a pipeline: batches settle once the broker has confirmed them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flowstream.client import AmqpMessage, Publisher, encode_data_all
from flowstream.connectors.encoding import encode_data
from flowstream.connectors.environment import environment_of
from flowstream.connectors.stream_producer import check_stream
from flowstream.errors import ConfigurationError, MessageTooLarge
from flowstream.pipeline import Batch, Message, RunContext, Sink
from flowstream.telemetry import Tracer
from flowstream.texts import interrupts, shown, type_name


class StreamSink(Sink):
    """Publishes each message of a batch to `stream`, in order, and waits for all confirms.

    The body is `encode(data)`: bytes and str as they are, models, dataclasses and dicts as JSON.
    JSON has neither NaN nor infinity (`1e400` is read as infinity): a message with one fails.
    A message that cannot be encoded, or is too large, fails alone; when the broker refuses any, the
    batch fails and may be published again (at least once). `amqp=True` wraps bodies into AMQP 1.0
    messages, which carry the context of a trace to who consumes them.
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
            raise ConfigurationError(
                f"StreamSink > encode: expected a function, got {shown(encode)}"
            )
        self.stream = stream
        self.encode = encode
        self.amqp = amqp
        self.filter_value = filter_value
        self.max_unconfirmed = max_unconfirmed

    def writes(self) -> Sequence[str]:
        return [self.stream]

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
        well, bodies = self._encoded(messages)
        if self.amqp:
            bodies = encode_data_all(bodies)
        if bodies and tracer is None:
            await _publish(publisher, well, bodies)
        elif bodies and tracer is not None:
            with tracer.publishing(self.stream, len(bodies)) as properties:
                if self.amqp and properties:
                    head = _section(properties)
                    bodies = [head + body for body in bodies]
                await _publish(publisher, well, bodies)

    def _encoded(self, messages: Sequence[Message[Any]]) -> tuple[list[Message[Any]], list[bytes]]:
        """The messages that can be encoded, and their bodies; the others fail."""
        well: list[Message[Any]] = []
        bodies: list[bytes] = []
        for message in messages:
            try:
                body = self.encode(message.data)
                if not isinstance(body, bytes):
                    raise TypeError(f"encode returned {type_name(body)}, not bytes")
            except BaseException as error:
                if interrupts(error):
                    raise
                message.fail(error, retry=False)
            else:
                well.append(message)
                bodies.append(body)
        return well, bodies

    def __repr__(self) -> str:
        return f"StreamSink({self.stream!r})"


async def _publish(publisher: Publisher, messages: list[Message[Any]], bodies: list[bytes]) -> None:
    """Publish; what no frame can hold fails alone, for nothing was sent when that is told."""
    while bodies:
        try:
            await publisher.publish_many(bodies)
            return
        except MessageTooLarge as error:
            largest = max(range(len(bodies)), key=lambda index: len(bodies[index]))
            del bodies[largest]
            messages.pop(largest).fail(error, retry=False)


def _section(application_properties: Mapping[str, str]) -> bytes:
    """What goes before the data section of each message."""
    empty = AmqpMessage.of(b"", application_properties=application_properties).raw
    return empty.removesuffix(encode_data_all([b""])[0])
