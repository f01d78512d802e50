"""A stream as the sink of a batcher: a batch is settled after its messages are confirmed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import to_json

from flowstream.client import Compression, encode_data, encode_message
from flowstream.connectors.sharing import environment
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, Message, RunContext, Sink, Write


def default_body(message: Message[Any]) -> bytes:
    """bytes and str as they are; everything else that pydantic can turn into JSON as JSON."""
    data = message.data
    if isinstance(data, bytes):
        return data
    return data.encode() if isinstance(data, str) else to_json(data)


class StreamSink(Sink):
    """Publishes each message of a batch to `stream`, as the data of an AMQP 1.0 message.

    `body` makes the bytes (see `default_body`), `properties` the application properties;
    `amqp=False` publishes bare bytes. With `sub_batch` so many messages share one entry and one
    `compression`. A message whose body cannot be made fails alone; a refused batch fails whole,
    and trying it again may repeat messages: consumers see each at least once.
    """

    def __init__(
        self,
        stream: str,
        *,
        body: Callable[[Message[Any]], bytes] = default_body,
        properties: Callable[[Message[Any]], dict[str, Any]] | None = None,
        amqp: bool = True,
        max_unconfirmed: int = 10_000,
        sub_batch: int = 0,
        compression: Compression = Compression.NONE,
    ) -> None:
        if not stream:
            raise ConfigurationError("StreamSink: the stream's name is empty")
        if properties is not None and not amqp:
            raise ConfigurationError("StreamSink > properties: plain bodies have none; amqp=True")
        self.stream = stream
        self.body = body
        self.properties = properties
        self.amqp = amqp
        self.max_unconfirmed = max_unconfirmed
        self.sub_batch = sub_batch
        self.compression = compression

    def __repr__(self) -> str:
        return f"StreamSink({self.stream!r})"

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Write]:
        """Raises StreamDoesNotExist, and what `Environment` raises."""
        env = await environment(context)
        async with env.publisher(
            self.stream,
            max_unconfirmed=self.max_unconfirmed,
            sub_batch=self.sub_batch,
            compression=self.compression,
        ) as publisher:

            async def write(batch: Batch[Any]) -> None:
                await publisher.publish_many(self._encoded(batch))

            yield write

    def _encoded(self, batch: Batch[Any]) -> list[bytes]:
        bodies = []
        for message in batch.messages:
            try:
                bodies.append(self._encode(message))
            except Exception as error:
                message.fail(error)
        return bodies

    def _encode(self, message: Message[Any]) -> bytes:
        body = self.body(message)
        if self.properties is not None:
            return encode_message(body, application_properties=self.properties(message))
        return encode_data(body) if self.amqp else body
