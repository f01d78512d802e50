"""What a worker sees of the broker: an environment, and the consumer of the super stream.

Promotions and demotions go through the client's own queue, so that their order is its order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from flowstream.client.connecting.connection import ClientConnection
from flowstream.client.connecting.settings import RECONNECT
from flowstream.client.consuming.single_active import ActivationQueue
from flowstream.client.consuming.super_consumer import side_by_side
from flowstream.protocol import OffsetSpec
from flowstream.signals import Signal
from flowstream.testing.memory_broker import MemoryDelivery
from flowstream.testing.memory_consumers import MemoryConsumer
from tests.simulation.group import Group, Member

OnActive = Callable[[str], Awaitable[OffsetSpec]]
OnInactive = Callable[[str], Awaitable[None]]


class Link:
    """The part of a connection that a promotion needs; it stands for the connection of a member."""

    error: Exception | None = None

    def __init__(self, group: Group, member: Member) -> None:
        self._group = group
        self._member = member

    @property
    def usable(self) -> bool:
        return self.error is None

    def answer_update(self, correlation_id: int, offset: OffsetSpec) -> None:
        if self.usable:
            self._group.answered(self._member, bool(correlation_id))


class PartitionConsumer:
    """The consumer of one partition: on standby, or with a `reader` while it is active."""

    def __init__(self, consumer: GroupConsumer, partition: str) -> None:
        self.partition = partition
        self.reader: MemoryConsumer | None = None
        self.member: Member | None = None
        self.losses = 0
        self.opened = self.moves = False
        self._consumer = consumer
        self._link: Link | None = None
        self._leaving = False
        self._queue: ActivationQueue | None = None

    @property
    def is_moving(self) -> bool:
        return self._queue is not None and self._queue.busy

    async def open(self) -> None:
        """Subscribe; after a failure again, with the client's delays."""
        attempt, group = 0, self._consumer.group
        while not await group.register(self.partition, self):
            attempt += 1
            await anyio.sleep(RECONNECT.delay(attempt, group.network.random.random()))
        self.opened = True

    async def subscribe_again(self) -> None:
        """Hand over, and become the last consumer of the partition."""
        self._leaving = self.moves = True
        if self._queue is not None:
            await self._queue.step_down(cast("ClientConnection | None", self._link))
        member, self.member, self._link = self.member, None, None
        self._leaving = False
        if member is not None:
            await self._consumer.group.unregister(member)
            await self.open()
        self.moves = False

    # -- called by the broker

    def update(self, member: Member, active: bool) -> None:
        if self._consumer.dead or member is not self.member or (self._leaving and active):
            return
        if self._link is None:
            self._link = Link(self._consumer.group, member)
        self._add(self._link, active)

    def lost(self) -> None:
        """The node is gone: what was read is settled, and another node is tried."""
        if self._consumer.dead:
            return
        if self._link is not None:
            self._link.error = ConnectionError("the node is down")
        self.member = self._link = None
        self.losses += 1
        if self.reader is not None:
            self._add(None, False)
        self._consumer.spawn(self.open)

    def _add(self, link: Link | None, active: bool) -> None:
        if self._queue is None:
            self._queue = ActivationQueue(
                self.partition,
                RECONNECT,
                promoted=self._promoted,
                demoted=self._demoted,
                failed=self._consumer.failed,
            )
            self._consumer.spawn(self._queue.run)
        self._queue.add(cast("ClientConnection | None", link), int(active), active)

    async def _promoted(self) -> OffsetSpec:
        offset = await self._consumer.on_active(self.partition)
        memory = self._consumer.group.memory
        self.reader = MemoryConsumer(memory, self.partition, offset.value, None, "error")
        self._consumer.begin(self)
        return offset

    async def _demoted(self, awaited: bool) -> None:
        self._consumer.end(self)
        while awaited and self._consumer.held is self:
            await self._consumer.released.wait()
        await self._consumer.on_inactive(self.partition)
        self.reader = None


class GroupConsumer:
    """Like `flowstream.client.SuperStreamConsumer` with `single_active`."""

    def __init__(
        self, group: Group, tasks: TaskGroup, on_active: OnActive, on_inactive: OnInactive
    ) -> None:
        self.group = group
        self.on_active = on_active
        self.on_inactive = on_inactive
        self.dead = False
        self.held: PartitionConsumer | None = None
        self.released = Signal()
        self.arrived = Signal()
        self.consumers = {name: PartitionConsumer(self, name) for name in group.names}
        self.partitions: list[str] = list(group.names)
        self._turn: list[PartitionConsumer] = []
        self._tasks = tasks
        self._scopes: dict[anyio.CancelScope, None] = {}

    def spawn(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run until it ends, or this consumer does."""
        self._tasks.start_soon(self._run, run)

    async def _run(self, run: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope() as scope:
            self._scopes[scope] = None
            try:
                await run()
            finally:
                del self._scopes[scope]

    def die(self) -> None:
        """Nothing of it goes on."""
        self.dead = True
        for scope in tuple(self._scopes):
            scope.cancel()

    async def open(self) -> None:
        """As the client does it: the others are opened while the first one is read."""
        first, *others = self.consumers.values()
        await first.open()
        self.spawn(lambda: side_by_side(PartitionConsumer.open, others))

    async def subscribe_again(self) -> None:
        await side_by_side(PartitionConsumer.subscribe_again, self.consumers.values())

    async def close(self) -> None:
        if not self.dead:
            for consumer in self.consumers.values():
                if consumer.member is not None:
                    await self.group.unregister(consumer.member)
        self.die()

    def failed(self, error: Exception) -> None:
        raise error

    @property
    def active(self) -> list[str]:
        return [each.partition for each in self._turn]

    @property
    def moving(self) -> list[str]:
        return [name for name, each in self.consumers.items() if each.is_moving]

    @property
    def positions(self) -> dict[str, int | None]:
        return {
            name: None if each.reader is None else each.reader.position
            for name, each in self.consumers.items()
            if each.opened
        }

    @property
    def losses(self) -> dict[str, int | None]:
        return {
            name: None if each.member is None else each.losses
            for name, each in self.consumers.items()
        }

    def begin(self, consumer: PartitionConsumer) -> None:
        self._turn.append(consumer)
        self.arrived.notify()

    def end(self, consumer: PartitionConsumer) -> None:
        if consumer in self._turn:
            self._turn.remove(consumer)

    def __aiter__(self) -> GroupConsumer:
        return self

    async def __anext__(self) -> MemoryDelivery:
        self.held = None
        self.released.notify()
        while True:
            for place, each in enumerate(self._turn):
                assert each.reader is not None
                found = each.reader.take()
                if isinstance(found, MemoryDelivery):
                    self._turn.append(self._turn.pop(place))
                    self.held = each
                    return found
            await self.arrived.wait()


class WorkerEnvironment:
    """The environment of one worker. What a dead worker sends reaches nobody."""

    def __init__(self, group: Group, tasks: TaskGroup) -> None:
        self.group = group
        self.reads: GroupConsumer | None = None
        self.dead = False
        self._tasks = tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self.group.memory, name)

    def die(self) -> None:
        self.dead = True
        if self.reads is not None:
            self.reads.die()

    async def query_beginning(self, reference: str, stream: str) -> int | None:
        await anyio.sleep(self.group.network.some(self.group.network.round_trip))
        return await self.group.memory.query_beginning(reference, stream)

    async def store_beginning(self, reference: str, stream: str) -> None:
        if not self.dead:
            await self.group.memory.store_beginning(reference, stream)

    async def store_offset(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        if not self.dead:
            await self.group.memory.store_offset(reference, stream, offset)

    async def store_offset_verified(
        self, reference: str, stream: str, offset: int, *, keep: bool = False
    ) -> None:
        await self.store_offset(reference, stream, offset)
        await anyio.sleep(self.group.network.some(self.group.network.round_trip))

    @asynccontextmanager
    async def super_stream_consumer(
        self, super_stream: str, *, on_active: OnActive, on_inactive: OnInactive, **_: Any
    ) -> AsyncIterator[GroupConsumer]:
        consumer = self.reads = GroupConsumer(self.group, self._tasks, on_active, on_inactive)
        try:
            await consumer.open()
            yield consumer
        finally:
            with anyio.CancelScope(shield=True):
                await consumer.close()
