"""Publishes to a super stream: each message goes to the partition of its key.

Hash routing is the same in all clients: murmur3 (x86, 32 bits, seed 104729) of the key's UTF-8
bytes, unsigned, modulo the number of partitions, which are numbered in the server's order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import anyio
import mmh3

from flowstream.client.connecting.block import Block
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.partitions import Partitions
from flowstream.client.connecting.recovery import State
from flowstream.errors import ConfigurationError, FlowstreamError, PublishFailed
from flowstream.protocol import AmqpMessage
from flowstream.texts import shown

from .options import KeyOf, PublisherOptions, Routing
from .publisher import Publisher
from .send_buffer import check_bodies, plain_body

SEED = 104729


def hash_index(key: str, partitions: int) -> int:
    """The index of the partition for a key, by hash routing."""
    try:
        data = key.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"key={shown(key)}: expected a string without lone surrogates"
        ) from None
    return mmh3.hash(data, SEED, signed=False) % partitions


def hash_route(key: str, partitions: Sequence[str]) -> str:
    """The partition for a key, by hash routing."""
    return partitions[hash_index(key, len(partitions))]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Group:
    """The messages for one partition, with their publishing ids if they were given."""

    bodies: list[bytes]
    ids: list[int] | None


class SuperStreamPublisher:
    """Publishes to the partitions of a super stream, with a publisher and a window for each.

    With `routing="hash"` keys are distributed over all partitions; with "key" a message goes to the
    partitions that are bound with its key (to each of them, if there are several). Pass the key
    with the message, or a function as `key` that computes it from the body. Publishing ids and
    deduplication are per partition. A partition's publisher is opened for its first message.
    """

    def __init__(
        self,
        manager: ConnectionManager,
        partitions: Partitions,
        options: PublisherOptions,
        *,
        key: KeyOf | None,
        routing: Routing,
    ) -> None:
        self.super_stream: str = partitions.super_stream
        self._manager = manager
        self._partitions = partitions
        self._options = options
        self._key = key
        self.routing: Routing = routing
        self._publishers: dict[str, Publisher] = {}
        self._lock = anyio.Lock()
        self._closed = False
        self._block = Block(f'the publisher of super stream "{partitions.super_stream}"')

    def __repr__(self) -> str:
        return f"<publisher of super stream {self.super_stream!r}>"

    @property
    def partitions(self) -> list[str]:
        """The partitions as last read, in the server's order."""
        return list(self._partitions.streams)

    @property
    def deduplicated(self) -> int:
        """`Publisher.deduplicated`, the sum over all partitions."""
        return sum(publisher.deduplicated for publisher in self._publishers.values())

    @property
    def unconfirmed(self) -> int:
        return sum(publisher.unconfirmed for publisher in self._publishers.values())

    def statistics(self) -> dict[str, dict[str, int]]:
        """`Publisher.statistics` of each partition."""
        return {stream: each.statistics() for stream, each in self._publishers.items()}

    # --- sending --------------------------------------------------------------------------------

    async def send(
        self,
        body: bytes | AmqpMessage,
        *,
        key: str | None = None,
        publishing_id: int | None = None,
        filter_value: str | None = None,
    ) -> None:
        """As `Publisher.send`; raises PublishFailed if no partition is bound with the key."""
        for stream in await self._route(body, key):
            publisher = await self._publisher(stream)
            await publisher.send(body, publishing_id=publishing_id, filter_value=filter_value)

    async def publish(
        self,
        body: bytes | AmqpMessage,
        *,
        key: str | None = None,
        publishing_id: int | None = None,
        filter_value: str | None = None,
    ) -> None:
        """As `Publisher.publish`: waits until all partitions that get it have confirmed it."""
        for stream in await self._route(body, key):
            publisher = await self._publisher(stream)
            await publisher.publish(body, publishing_id=publishing_id, filter_value=filter_value)

    async def send_many(
        self,
        bodies: Sequence[bytes],
        *,
        keys: Sequence[str] | None = None,
        publishing_ids: Sequence[int] | None = None,
    ) -> None:
        """As `Publisher.send_many`; the order is kept within each partition."""
        for publisher, group in await self._grouped(bodies, keys, publishing_ids):
            await publisher.send_many(group.bodies, publishing_ids=group.ids)

    async def publish_many(
        self,
        bodies: Sequence[bytes],
        *,
        keys: Sequence[str] | None = None,
        publishing_ids: Sequence[int] | None = None,
    ) -> None:
        """As `Publisher.publish_many`, to all partitions concurrently."""

        async def publish(pair: tuple[Publisher, _Group]) -> None:
            publisher, group = pair
            await publisher.publish_many(group.bodies, publishing_ids=group.ids)

        await _each(publish, await self._grouped(bodies, keys, publishing_ids))

    async def partitions_of(self, key: str) -> Sequence[str]:
        """The partitions for a key; raises PublishFailed if none is bound with it."""
        if not isinstance(key, str):
            raise ConfigurationError(f"key={shown(key)}: expected a string, such as str(number)")
        self._block.check()
        if self.routing == "hash":
            return (hash_route(key, self._partitions.streams),)
        streams = await self._partitions.bound(key)
        if not streams:
            raise PublishFailed(
                f'no partition of super stream "{self.super_stream}" is bound with the key {key!r}',
                stream=self.super_stream,
            )
        return streams

    async def flush(self) -> None:
        """As `Publisher.flush`, for all partitions."""
        self._block.check()
        await _each(Publisher.flush, list(self._publishers.values()))

    async def _grouped(
        self, bodies: Sequence[bytes], keys: Sequence[str] | None, ids: Sequence[int] | None
    ) -> list[tuple[Publisher, _Group]]:
        """The messages for each partition; raises MessageTooLarge before anything is sent."""
        check_bodies(bodies)
        for name, given in (("keys", keys), ("publishing_ids", ids)):
            if given is not None and len(given) != len(bodies):
                raise ConfigurationError(
                    f"{name} has {len(given)} items for {len(bodies)} bodies; pass one for each"
                )
        groups: dict[str, _Group] = {}
        for number, body in enumerate(bodies):
            for stream in await self._route(body, None if keys is None else keys[number]):
                group = groups.setdefault(stream, _Group([], None if ids is None else []))
                group.bodies.append(body)
                if ids is not None and group.ids is not None:
                    group.ids.append(ids[number])
        grouped = [(await self._publisher(stream), group) for stream, group in groups.items()]
        for publisher, group in grouped:
            publisher.check_fits(group.bodies)
        return grouped

    async def _route(self, body: bytes | AmqpMessage, key: str | None) -> Sequence[str]:
        if key is None:
            if self._key is None:
                raise ConfigurationError(
                    "a message for a super stream needs key=, or its publisher a function as key="
                )
            key = self._key(plain_body(body))
        return await self.partitions_of(key)

    async def _publisher(self, stream: str) -> Publisher:
        """The publisher of a partition; a new one if the last one gave up."""
        found = self._publishers.get(stream)
        if found is not None and found.state is not State.CLOSED:
            return found
        async with self._lock:
            if self._closed:
                raise PublishFailed(f"{self!r} is closed", stream=stream)
            found = self._publishers.get(stream)
            if found is not None and found.state is State.CLOSED:
                del self._publishers[stream]
                await found.__aexit__(None, None, None)  # raises failures not reported yet
            if stream not in self._publishers:
                publisher = Publisher(self._manager, stream, self._options)
                self._publishers[stream] = await publisher.__aenter__()
            return self._publishers[stream]

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> SuperStreamPublisher:
        self._block.enter()
        await self._partitions.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flushes and closes the publishers of all partitions; raises the first failure."""
        self._closed = True
        try:
            await _each(lambda p: p.__aexit__(kind, error, trace), list(self._publishers.values()))
        finally:
            await self._partitions.stop()


async def _each(function: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Calls `function` for all items concurrently, waits for all, and raises the first error."""
    errors: list[FlowstreamError] = []

    async def one(item: T) -> None:
        try:
            await function(item)
        except FlowstreamError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(one, item)
    if errors:
        raise errors[0]
