"""How a StreamSink with `exactly_once` writes a batch; publish_once.py has what that rests on.

Batches come one after the other, and within a source partition in its order. A message that cannot
be published fails, and nothing behind it may be published before it is decided what becomes of it.
So the messages behind it are given back to the pipeline, and come again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from flowstream.client import encode_data_all
from flowstream.connectors.environment import StreamEnvironment, SuperStreamWriter
from flowstream.connectors.once_routing import OnceRouting
from flowstream.connectors.outputs import Encode, Key, head_of, key_of, outputs_of
from flowstream.connectors.publish_once import (
    MOST_OFFSET,
    MOST_OUTPUTS,
    OUTPUT_BITS,
    OncePublisher,
    publishing_ids,
    when_connected,
)
from flowstream.errors import MessageTooLarge, PublishFailed, SinkFailed
from flowstream.pipeline import Batch, Message, OrderedWrite, RunContext, Turn
from flowstream.texts import interrupts

Place = tuple[str, str]
"""A source stream, and a target stream."""


class Options(Protocol):
    """Those of a StreamSink that matter here."""

    stream: str
    key: Key | None
    encode: Encode
    amqp: bool
    filter_value: Callable[[bytes], str | None] | None
    max_unconfirmed: int

    def once_reference(self, pipeline: str, batcher: str) -> str: ...


class Outputs:
    """What a batch becomes: ids and bodies for each place, and the messages that come again."""

    def __init__(self) -> None:
        self.of: dict[Place, tuple[list[int], list[bytes]]] = {}
        self.left: Sequence[Message[Any]] = ()

    def add(self, place: Place, ids: Sequence[int], bodies: Sequence[bytes]) -> None:
        known = self.of.setdefault(place, ([], []))
        known[0].extend(ids)
        known[1].extend(bodies)


@asynccontextmanager
async def once_writer(
    sink: Options,
    environment: StreamEnvironment,
    context: RunContext,
    routes: AbstractAsyncContextManager[SuperStreamWriter] | None,
) -> AsyncIterator[OrderedWrite]:
    """The function that writes batches. `routes` chooses the partitions of a super stream."""
    async with AsyncExitStack() as stack:
        router = None if routes is None else await stack.enter_async_context(routes)
        writer = OnceWriter(sink, environment, context, router)
        stack.push_async_callback(writer.close)
        yield writer.write


class OnceWriter:
    """Writes the batches of one run."""

    def __init__(
        self,
        sink: Options,
        environment: StreamEnvironment,
        context: RunContext,
        router: SuperStreamWriter | None,
    ) -> None:
        self._sink = sink
        self._environment = environment
        self._context = context
        self._router = router
        self._publisher: OncePublisher | None = None
        self._routing: OnceRouting | None = None

    async def write(self, batch: Batch[Any], turn: Turn) -> None:
        publisher = self._of(batch.batcher)
        publisher.check()
        outputs = await self._outputs(batch, publisher)
        channels = [await publisher.channel(*place) for place in outputs.of]
        tracer = self._context.telemetry.tracer
        if tracer is None:
            for channel, (ids, bodies) in zip(channels, outputs.of.values(), strict=True):
                await channel.send(ids, self._wrapped(bodies, b""))
        else:
            count = sum(len(ids) for ids, _ in outputs.of.values())
            with tracer.publishing(self._sink.stream, count) as properties:
                head = head_of(properties) if self._sink.amqp and properties else b""
                for channel, (ids, bodies) in zip(channels, outputs.of.values(), strict=True):
                    await channel.send(ids, self._wrapped(bodies, head))
        if outputs.left:
            turn.again(outputs.left)
        else:
            turn.pass_on()
        for channel in channels:
            await channel.confirmed()

    async def _outputs(self, batch: Batch[Any], publisher: OncePublisher) -> Outputs:
        if self._router is None:
            return await self._in_order(batch) or await self._one_by_one(batch)
        if self._routing is None:
            assert self._sink.key is not None
            self._routing = OnceRouting(publisher, self._router, self._sink.key)
        begins = {it.stream: it.offsets[0] for it in reversed(batch.origins) if it.resumes}
        while True:
            partitions = await self._routing.check(begins)
            outputs = await self._one_by_one(batch)
            if partitions == self._router.partitions:  # they are read again from time to time
                return outputs

    def _wrapped(self, bodies: list[bytes], head: bytes) -> list[bytes]:
        if not self._sink.amqp:
            return bodies
        bodies = encode_data_all(bodies)
        return [head + body for body in bodies] if head else bodies

    async def _in_order(self, batch: Batch[Any]) -> Outputs | None:
        """The outputs of a batch in which nothing is special; None for others."""
        sink, origins = self._sink, batch.origins
        if self._router is not None or not all(origin.resumes for origin in origins):
            return None
        try:
            bodies: list[Any] = [sink.encode(data) for data in batch.data]
        except BaseException as error:
            if interrupts(error):
                raise
            return None
        if set(map(type, bodies)) != {bytes}:
            return None
        outputs = Outputs()
        for origin in origins:
            if origin.offsets[-1] > MOST_OFFSET:
                return None
            ids = [(offset + 1) << OUTPUT_BITS for offset in origin.offsets]
            end = origin.start + len(ids)
            outputs.add((origin.stream, sink.stream), ids, bodies[origin.start : end])
        try:
            await self._check_fits((origins[0].stream, sink.stream), bodies)
        except MessageTooLarge:
            return None
        return outputs

    async def _one_by_one(self, batch: Batch[Any]) -> Outputs:
        """The outputs of the messages before the first that fail. Those behind come again."""
        outputs = Outputs()
        messages, resumes = batch.messages, _resumes(batch)
        failed = False
        for index, message in enumerate(messages):
            if not resumes[index]:
                message.fail(_no_number(message), retry=False)
            found = [] if message.failed else await self._of_message(message)
            if message.failed:
                failed = True
                continue
            if failed:
                outputs.left = messages[index:]
                break
            for place, ids, bodies in found:
                outputs.add(place, ids, bodies)
        return outputs

    async def _of_message(
        self, message: Message[Any]
    ) -> list[tuple[Place, Sequence[int], list[bytes]]]:
        """What a message becomes; nothing if it fails. Raises what is not the message's fault, such
        as a target that is gone: no policy may give the message up for that.
        """
        sink, source = self._sink, message.stream
        try:
            bodies, key = self._encoded(message)
        except BaseException as error:
            if interrupts(error):
                raise
            message.fail(error, retry=False)
            return []
        targets: Sequence[str] = (sink.stream,)
        try:
            if self._router is not None and key is not None:
                targets = await when_connected(partial(self._router.partitions_of, key))
            if bodies:
                await self._check_fits((source, targets[0]), bodies)
        except PublishFailed as error:  # it is too large, or no partition has its key
            message.fail(error, retry=False)
            return []
        ids = publishing_ids(message.offset, len(bodies))
        return [((source, target), ids, bodies) for target in targets if bodies]

    def _encoded(self, message: Message[Any]) -> tuple[list[bytes], str | None]:
        """The bodies of a message, and for a super stream its key: what users' functions make."""
        sink = self._sink
        bodies = outputs_of(sink.encode, message.data)
        if len(bodies) > MOST_OUTPUTS or message.offset > MOST_OFFSET:
            raise ValueError(
                f"exactly_once: a message may become {MOST_OUTPUTS} messages at most, and not "
                f"{len(bodies)}, and its offset may be {MOST_OFFSET} at most"
            )
        if self._router is None:
            return bodies, None
        assert sink.key is not None
        return bodies, key_of(sink.key, message)

    async def _check_fits(self, place: Place, bodies: Sequence[bytes]) -> None:
        """Raise MessageTooLarge if a body does not fit into a frame."""
        assert self._publisher is not None
        channel = await self._publisher.channel(*place)
        channel.publisher.check_fits(self._wrapped(list(bodies), b""))

    def _of(self, batcher: str) -> OncePublisher:
        if self._publisher is None:
            sink, pipeline = self._sink, self._context.pipeline
            self._publisher = OncePublisher(
                self._environment, pipeline, sink.once_reference(pipeline, batcher),
                filter_value=sink.filter_value, max_unconfirmed=sink.max_unconfirmed,
            )  # fmt: skip
        return self._publisher

    async def close(self) -> None:
        if self._publisher is not None:
            await self._publisher.close()


def _no_number(message: Message[Any]) -> SinkFailed:
    return SinkFailed(
        f"exactly_once: {message.stream!r} stores no offsets, so that a message of it has no "
        "number that stays the same"
    )


def _resumes(batch: Batch[Any]) -> list[bool]:
    """Of each message, whether its source stores offsets."""
    return [origin.resumes for origin in batch.origins for _ in origin.offsets]
