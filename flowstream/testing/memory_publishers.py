"""Publishers to a broker in memory, with the interface of the client's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowstream.client import Routing, State
from flowstream.errors import PublishFailed
from flowstream.testing.memory_broker import MemoryBroker
from flowstream.testing.memory_stream import encoded


class MemoryPublisher:
    """Like `flowstream.client.Publisher`; every message is confirmed when it is sent.

    With a reference, messages whose publishing id is not above the last one are duplicates, and
    are not added to the stream.
    """

    max_body: int | None = None
    state = State.OPEN

    def __init__(self, broker: MemoryBroker, stream: str, reference: str | None) -> None:
        self.stream = stream
        self._broker = broker
        self._reference = reference

    @property
    def last_publishing_id(self) -> int | None:
        """The highest publishing id of the reference, or 0; None without a reference."""
        if self._reference is None:
            return None
        return self._broker.last_publishing_id(self._reference, self.stream)

    def check_fits(self, bodies: Sequence[bytes]) -> None:
        """Every body fits: there are no frames."""

    async def publish(self, body: Any, *, publishing_id: int | None = None, **_: Any) -> None:
        ids = None if publishing_id is None else [publishing_id]
        await self.publish_many([body], publishing_ids=ids)

    async def publish_many(
        self, bodies: Sequence[Any], *, publishing_ids: Sequence[int] | None = None, **_: Any
    ) -> None:
        broker = self._broker
        await broker.until_connected()
        broker.check_refusal(self.stream)
        if self._reference is not None and publishing_ids is not None:
            bodies = broker.without_duplicates(self._reference, self.stream, bodies, publishing_ids)
        broker.append(self.stream, [encoded(body) for body in bodies])

    send = publish
    send_many = publish_many

    async def flush(self) -> None:
        await self._broker.until_connected()


class MemorySuperStreamPublisher:
    """Like `flowstream.client.SuperStreamPublisher`, for bodies that are given with their keys."""

    def __init__(self, broker: MemoryBroker, super_stream: str, routing: Routing) -> None:
        self.super_stream: str = super_stream
        self._broker = broker
        self.routing: Routing = routing

    @property
    def partitions(self) -> list[str]:
        return list(self._broker.super_stream(self.super_stream))

    async def partitions_of(self, key: str) -> Sequence[str]:
        """As the client's; a routing key is bound to the partition that is named after it."""
        if self.routing == "hash":
            return (self._broker.route(self.super_stream, key),)
        bound = f"{self.super_stream}-{key}"
        if bound not in self._broker.super_stream(self.super_stream):
            raise PublishFailed(f'no partition of "{self.super_stream}" is bound to key {key!r}')
        return (bound,)

    async def publish_many(self, bodies: Sequence[Any], *, keys: Sequence[str]) -> None:
        await self._broker.until_connected()
        routed = [
            (await self.partitions_of(key), body) for key, body in zip(keys, bodies, strict=True)
        ]
        for (stream,), _ in routed:
            self._broker.check_refusal(stream)
        for (stream,), body in routed:
            self._broker.append(stream, [encoded(body)])
