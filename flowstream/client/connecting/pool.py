"""A pool of connections by node, shared by publishers or by consumers, with up to 256 on each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import anyio

from flowstream.errors import ConnectionClosed, FlowstreamError, RequestTimeout
from flowstream.protocol import Address, Command, Response

from .connection import ClientConnection
from .settings import log
from .users import IdAllocator

User = TypeVar("User")

DOUBTED = 10.0
"""Seconds for which a node counts as doubtful after a connection to it was lost or failed."""


@dataclass(frozen=True, slots=True, eq=False)
class Registration(Generic[User]):
    """A publisher or subscription on a connection: the id that it has there."""

    connection: ClientConnection
    id: int
    ids: IdAllocator[User]


class ConnectGate:
    """Lets one task at a time connect to a node; tasks that wait meanwhile share its result.

    Without it a hundred consumers of a lost node would each wait for the connect timeout, in turn.
    """

    __slots__ = ("attempts", "error", "lock")

    def __init__(self) -> None:
        self.lock: Final = anyio.Lock()
        self.attempts: int = 0
        self.error: FlowstreamError | None = None


class Pool(Generic[User]):
    """Registers users on connections, opens connections on demand, and closes unused ones."""

    def __init__(
        self,
        open_at: Callable[[Address], Awaitable[ClientConnection]],
        ids_of: Callable[[ClientConnection], IdAllocator[Any]],
    ) -> None:
        self._open_at = open_at
        self._ids_of = ids_of
        self._connections: dict[Address, list[ClientConnection]] = {}
        self._gates: dict[Address, ConnectGate] = {}
        self._failed_at: dict[Address, float] = {}

    @property
    def connections(self) -> list[ClientConnection]:
        return [c for group in self._connections.values() for c in group]

    async def enter(self, node: Address, user: User) -> Registration[User]:
        """Registers the user on a connection to this node; raises if none can be opened."""
        gate = self._gates.setdefault(node, ConnectGate())
        before = gate.attempts
        async with gate.lock:
            connection = self._with_room(node)
            if connection is None:
                if gate.error is not None and gate.attempts != before:
                    raise gate.error
                connection = await self._open(node, gate)
            ids: IdAllocator[User] = self._ids_of(connection)
            return Registration(connection, ids.add(user), ids)

    async def _open(self, node: Address, gate: ConnectGate) -> ClientConnection:
        gate.attempts += 1
        gate.error = None
        try:
            connection = await self._open_at(node)
        except FlowstreamError as error:
            gate.error = error
            self._failed_at[node] = anyio.current_time()
            raise
        self._failed_at.pop(node, None)
        self._connections.setdefault(node, []).append(connection)
        connection.when_lost(self._forget)
        return connection

    def without_doubtful(self, nodes: tuple[Address, ...]) -> tuple[Address, ...]:
        """The nodes that have not failed lately; all of them if there is no such node."""
        since = anyio.current_time() - DOUBTED
        sound = (node for node in nodes if self._failed_at.get(node, since) <= since)
        return tuple(sound) or nodes

    def open_at_one_of(self, nodes: Iterable[Address]) -> Address | None:
        """The first of the nodes with an open connection that has room; None if there is none."""
        return next((node for node in nodes if self._with_room(node) is not None), None)

    async def leave(self, registration: Registration[User]) -> None:
        """Removes the user; the connection is closed if it was the last one."""
        registration.ids.remove(registration.id)
        connection = registration.connection
        if not len(registration.ids) and connection.error is None:
            self._forget(connection)
            await connection.close()

    async def retire(
        self, registration: Registration[User], delete: Callable[[int], Command], timeout: float
    ) -> None:
        """Removes the user from the broker, if the connection works, and then from the connection.

        Shielded from cancellation; waits at most `timeout` seconds for the broker.
        """
        with anyio.CancelScope(shield=True):
            if registration.connection.usable:
                try:
                    await registration.connection.request(delete, Response, timeout)
                except (ConnectionClosed, RequestTimeout) as error:
                    log.debug("%r did not confirm a removal: %s", registration.connection, error)
            await self.leave(registration)

    async def close(self) -> None:
        """Closes all connections, bounded by their close timeout."""
        async with anyio.create_task_group() as group:
            for connection in self.connections:
                group.start_soon(connection.close)

    def _with_room(self, node: Address) -> ClientConnection | None:
        for connection in self._connections.get(node, ()):
            if connection.usable and not connection.blocked and not self._ids_of(connection).full:
                return connection
        return None

    def _forget(self, connection: ClientConnection) -> None:
        for node, group in tuple(self._connections.items()):
            if connection in group:
                group.remove(connection)
                if connection.lost_unasked:
                    self._failed_at[node] = anyio.current_time()
            if not group:
                del self._connections[node]
