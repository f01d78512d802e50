"""The broker of a simulation: one super stream, and the workers that read it as one group.

The coordinator of the embedded broker decides who reads which partition. A command to it waits its
turn, as RabbitMQ's coordinator is one process for a cluster. Members are the consumers of one
partition of one worker; a member that was lost and comes back is another one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from flowstream.broker.single_active import Coordinator, Notice
from flowstream.testing import MemoryEnvironment
from tests.simulation.network import Network

SUPER_STREAM = "sales"
GROUP = "sales"
REPLICAS = 3


class Listener(Protocol):
    """The consumer of one partition in one worker; `member` is its subscription, if it has one."""

    member: Member | None

    def update(self, member: Member, active: bool) -> None: ...
    def lost(self) -> None: ...


@dataclass(eq=False, slots=True)
class Member:
    """A subscription, on a connection to `node`."""

    partition: str
    node: int
    listener: Listener
    notices: deque[bool] = field(default_factory=deque)
    """On their way, in order, as on a connection."""


@dataclass
class Counts:
    """What the broker had to do."""

    commands: int = 0
    moves: int = 0
    """Partitions that were given to a worker."""

    busy: float = 0.0
    """Seconds for which the coordinator worked."""


@dataclass(eq=False)
class Group:
    """The partitions, who reads them, and the streams themselves (`memory`)."""

    partitions: int
    network: Network = field(default_factory=Network)
    nodes: int = 3

    def __post_init__(self) -> None:
        self.memory = MemoryEnvironment(chunk_size=1_000)
        self.names = self.memory.super_stream(SUPER_STREAM, self.partitions)
        self.index = {name: number for number, name in enumerate(self.names)}
        self.members: dict[str, dict[Member, None]] = {name: {} for name in self.names}
        self.counts = Counts()
        self.up = set(range(self.nodes))
        self._coordinator: Coordinator[Member] = Coordinator()
        self._free = 0.0

    # -- requests of workers

    async def register(self, partition: str, listener: Listener) -> bool:
        """Subscribe at one of the replicas, at random; False if its node is down."""
        replicas = min(REPLICAS, self.nodes)
        node = (self.index[partition] + self.network.random.randrange(replicas)) % self.nodes
        await anyio.sleep(self.network.some(self.network.subscribe))
        if node not in self.up:
            return False
        member = Member(partition, node, listener)
        await self._turn()
        self.members[partition][member] = None
        listener.member = member
        notices = self._coordinator.register(partition, GROUP, self.index[partition], member)
        assert notices is not None
        self._send(notices)
        await anyio.sleep(self.network.some(self.network.round_trip))
        return True

    async def unregister(self, member: Member) -> None:
        """Unsubscribe."""
        await self._turn()
        self._remove(member)
        await anyio.sleep(self.network.some(self.network.round_trip))

    def answered(self, member: Member, active: bool) -> None:
        """The worker's answer to an update: a member that stepped down leaves its place."""
        if not active:
            self._later(self._stepped_down, member.partition)

    # -- failures

    def connections_closed(self, members: list[Member]) -> None:
        """The connections of these members are closed: one command for each would be too many."""
        self._later(self._remove_all, members)

    def node_down(self, node: int) -> None:
        """The node dies, and all connections to it are closed."""
        self.up.discard(node)
        lost = [each for group in self.members.values() for each in group if each.node == node]
        self.connections_closed(lost)
        for member in lost:
            member.listener.lost()

    # -- the coordinator

    async def _turn(self) -> None:
        await anyio.sleep(self._slot())

    def _slot(self) -> float:
        """The seconds until a command that arrives now has been carried out."""
        now = anyio.current_time()
        work = self.network.some(self.network.coordinate)
        self._free = max(now, self._free) + work
        self.counts.commands += 1
        self.counts.busy += work
        return self._free - now

    def _later(self, what: Callable[..., None], *arguments: object) -> None:
        asyncio.get_running_loop().call_later(self._slot(), what, *arguments)

    def _stepped_down(self, partition: str) -> None:
        self._send(self._coordinator.stepped_down(partition, GROUP))

    def _remove_all(self, members: list[Member]) -> None:
        for member in members:
            self._remove(member)

    def _remove(self, member: Member) -> None:
        self.members[member.partition].pop(member, None)
        self._send(self._coordinator.unregister(member.partition, GROUP, member))

    def _send(self, notices: list[Notice[Member]]) -> None:
        loop = asyncio.get_running_loop()
        for notice in notices:
            self.counts.moves += notice.active
            notice.member.notices.append(notice.active)
            delay = self.network.some(self.network.round_trip / 2)
            loop.call_later(delay, self._deliver, notice.member)

    def _deliver(self, member: Member) -> None:
        member.listener.update(member, member.notices.popleft())
