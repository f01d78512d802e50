"""A stream as the destination of batches, which settle once the broker has confirmed them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any

import anyio

from flowstream.client import Routing, State, encode_data_all, through_losses
from flowstream.connectors.encoding import encode_payload
from flowstream.connectors.environment import (
    StreamEnvironment,
    StreamWriter,
    environment_of,
    refuse_super_stream,
)
from flowstream.connectors.outputs import Encode, Key, head_of, key_of, outputs_of
from flowstream.connectors.publish_once import published_record, when_connected
from flowstream.connectors.stream_sink_once import once_writer
from flowstream.errors import (
    ConfigurationError,
    FlowstreamError,
    MessageTooLarge,
    PublishFailed,
)
from flowstream.pipeline import (
    EXACTLY_ONCE,
    Batch,
    Guarantee,
    Message,
    OrderedWrite,
    RunContext,
    Sink,
    Write,
)
from flowstream.schema import NAME, STREAM, Rule, is_plain, make, takes, whole
from flowstream.telemetry import Tracer
from flowstream.texts import interrupts

KEY = Rule(
    "the name of a field or a function",
    lambda value: bool(value) if isinstance(value, str) else is_plain(value),
)


@dataclass(frozen=True)
class StreamSinkArguments:
    """What `StreamSink(...)` takes."""

    stream: Annotated[str, STREAM, "where to publish to"]
    _: KW_ONLY
    key: Annotated[
        Key | None,
        KEY,
        "for a super stream: the field, or the function, that gives the routing key",
    ] = None
    routing: Annotated[Routing | None, "how keys choose partitions; None: the broker is asked"] = (
        None
    )
    encode: Annotated[
        Encode,
        "makes the body of a message's data; a list of bodies: all are published, in order",
    ] = encode_payload
    amqp: Annotated[bool, "wrap bodies into AMQP 1.0 messages"] = False
    filter_value: Annotated[Callable[[bytes], str | None] | None, "the filter value of a body"] = (
        None
    )
    max_unconfirmed: Annotated[
        int, whole(1, unit="messages"), "messages that wait for their confirm at most"
    ] = 10_000
    exactly_once: Annotated[bool, "publish each message once, whatever is repeated"] = False
    reference: Annotated[
        str | None, NAME, "what is published exactly once under; None: PIPELINE/SINK"
    ] = None


class StreamSink(Sink):
    """Publishes each message of a batch to `stream`, in order, and waits for all confirms.

    With `key`, `stream` is a super stream: the key of a message (a string or an int) chooses its
    partition, within which the order is kept. `key` is the name of a field of the message's data,
    or a function of the message. Keys are routed by their hash, or as routing keys if the super
    stream was created with routing keys; with `routing` ("hash" or "key") the broker is not asked.

    The body is `encode(data)`: bytes and str as they are, models, dataclasses and dicts as JSON.
    A message with NaN or infinity fails, because JSON has neither (`1e400` is read as infinity).
    A message that cannot be encoded, is too large, or has no key of a partition fails alone. If the
    broker refuses one, the batch fails and may be published again (at least once). `amqp=True`
    wraps bodies into AMQP 1.0 messages, which carry the context of a trace to consumers.

    With `exactly_once` each message is published once, whatever dies and is repeated, and in the
    order of its source partition (docs/exactly-once.md). The source must be a stream, and what a
    message becomes, and its key, must be the same each time. If publishing fails permanently, the
    run ends with that error, and the next run continues.
    """

    @takes(StreamSinkArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(StreamSinkArguments, arguments, values, "StreamSink")
        if options.routing is not None and options.key is None:
            raise ConfigurationError(
                f"StreamSink > routing={options.routing!r}: it needs key=, which it routes by"
            )
        self.stream: str = options.stream
        self.key: Key | None = options.key
        self.routing = options.routing
        self.encode: Encode = options.encode
        self.amqp: bool = options.amqp
        self.filter_value: Callable[[bytes], str | None] | None = options.filter_value
        self.max_unconfirmed: int = options.max_unconfirmed
        self.exactly_once: bool = options.exactly_once
        self.ordered: bool = options.exactly_once
        if options.reference is not None and not options.exactly_once:
            raise ConfigurationError(
                f"StreamSink > reference={options.reference!r}: it needs exactly_once=True"
            )
        self.reference: str | None = options.reference

    def writes(self) -> Sequence[str]:
        return [self.stream]

    def record(self, pipeline: str, name: str) -> str | None:
        if not self.exactly_once:
            return None
        return published_record(self.stream, self.once_reference(pipeline, name))

    def guarantee(self) -> Guarantee:
        if self.exactly_once:
            return EXACTLY_ONCE
        return Guarantee(
            "at least once",
            "a crash or a retry may publish a message again",
            "exactly_once=True publishes each message once, in the order of the source",
        )

    def once_reference(self, pipeline: str, batcher: str) -> str:
        """What it publishes under, with `exactly_once`."""
        return self.reference or f"{pipeline}/{batcher}"

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Write | OrderedWrite]:
        environment = await environment_of(context)
        exists = partial(environment.stream_exists, self.stream)
        if self.key is None and not await through_losses(exists):
            await refuse_super_stream(
                environment, self.stream, f"StreamSink({self.stream!r})",
                "and key= says which of its partitions a message goes to",
            )  # fmt: skip
        if self.exactly_once:
            routes = None if self.key is None else await self._publisher(environment)
            async with once_writer(self, environment, context, routes) as write_once:
                yield write_once
            return
        async with await self._publisher(environment) as publisher:

            async def write(batch: Batch[Any]) -> None:
                await self._publish(publisher, batch.messages, context.telemetry.tracer)

            yield write

    async def _publisher(self, environment: StreamEnvironment) -> AbstractAsyncContextManager[Any]:
        options: dict[str, Any] = {
            "filter_value": self.filter_value,
            "max_unconfirmed": self.max_unconfirmed,
        }
        if self.key is None:
            return _lasting_publisher(partial(environment.publisher, self.stream, **options))
        routing = await self._routing(environment)
        return environment.super_stream_publisher(self.stream, routing=routing, **options)

    async def _routing(self, environment: StreamEnvironment) -> Routing:
        if self.routing is not None:
            return self.routing
        return await through_losses(partial(environment.routing_of, self.stream))

    async def _publish(
        self, publisher: Any, messages: Sequence[Message[Any]], tracer: Tracer | None
    ) -> None:
        well, bodies = self._encoded(messages)
        keys: list[str] | None = None
        if self.key is not None:
            well, bodies, keys = await _routed(self.key, publisher, well, bodies)
        if self.amqp:
            bodies = encode_data_all(bodies)
        if bodies and tracer is None:
            await _publish(publisher, well, bodies, keys)
        elif bodies and tracer is not None:
            with tracer.publishing(self.stream, len(bodies)) as properties:
                if self.amqp and properties:
                    head = head_of(properties)
                    bodies = [head + body for body in bodies]
                await _publish(publisher, well, bodies, keys)

    def _encoded(self, messages: Sequence[Message[Any]]) -> tuple[list[Message[Any]], list[bytes]]:
        """The bodies, and for each body its message. Messages that cannot be encoded fail."""
        well: list[Message[Any]] = []
        bodies: list[bytes] = []
        for message in messages:
            try:
                found = outputs_of(self.encode, message.data)
            except BaseException as error:
                if interrupts(error):
                    raise
                message.fail(error, retry=False)
            else:
                well += [message] * len(found)
                bodies += found
        return well, bodies

    def __repr__(self) -> str:
        return f"StreamSink({self.stream!r})"


@asynccontextmanager
async def _lasting_publisher(
    make: Callable[[], AbstractAsyncContextManager[StreamWriter]],
) -> AsyncIterator[_LastingPublisher]:
    """A publisher that is opened now, and again for a message that comes after it has given up."""
    async with AsyncExitStack() as stack:
        lasting = _LastingPublisher(make, stack)
        await lasting.opened()
        yield lasting


class _LastingPublisher:
    """Publishes through the last of its publishers, which the stack closes.

    A publisher gives up if its stream is missing for long. It says so with every message from
    then on, also when the stream was created again.
    """

    def __init__(
        self,
        make: Callable[[], AbstractAsyncContextManager[StreamWriter]],
        stack: AsyncExitStack,
    ) -> None:
        self._make = make
        self._stack = stack
        self._publisher: StreamWriter | None = None
        self._lock = anyio.Lock()

    async def opened(self) -> StreamWriter:
        async with self._lock:
            if self._publisher is None or self._publisher.state is State.CLOSED:
                with suppress(FlowstreamError):  # what it could not publish was raised there
                    await self._stack.aclose()
                self._publisher = None
                self._publisher = await self._stack.enter_async_context(self._make())
            return self._publisher

    async def publish_many(self, bodies: list[bytes]) -> None:
        await (await self.opened()).publish_many(bodies)


async def _routed(
    key: Key, publisher: Any, messages: list[Message[Any]], bodies: list[bytes]
) -> tuple[list[Message[Any]], list[bytes], list[str]]:
    """The messages with the key of a partition, and their keys. The others fail."""
    well: list[Message[Any]] = []
    theirs: list[bytes] = []
    keys: list[str] = []
    for message, body in zip(messages, bodies, strict=True):
        try:
            found = key_of(key, message)
        except BaseException as error:
            if interrupts(error):
                raise
            message.fail(error, retry=False)
            continue
        try:
            await when_connected(partial(publisher.partitions_of, found))
        except PublishFailed as error:  # no partition has this routing key
            message.fail(error, retry=False)
        else:
            well.append(message)
            theirs.append(body)
            keys.append(found)
    return well, theirs, keys


async def _publish(
    publisher: Any,
    messages: list[Message[Any]],
    bodies: list[bytes],
    keys: list[str] | None,
) -> None:
    """Publish. A message too large for a frame fails alone, before anything is sent."""
    while bodies:
        try:
            if keys is None:
                await publisher.publish_many(bodies)
            else:
                await publisher.publish_many(bodies, keys=keys)
            return
        except MessageTooLarge as error:
            largest = max(range(len(bodies)), key=lambda index: len(bodies[index]))
            failed = messages[largest]
            failed.fail(error, retry=False)
            kept = [index for index, message in enumerate(messages) if message is not failed]
            messages = [messages[index] for index in kept]
            bodies = [bodies[index] for index in kept]
            keys = None if keys is None else [keys[index] for index in kept]
