"""Where streams are, and how to reach their nodes: the locator connection and addresses of nodes.

A broker advertises an address that may not resolve here (containers, load balancers). So the
address to connect to comes from an address resolver or from earlier connections, and the node that
answers is compared with the wanted one.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import anyio

from flowstream.checks import MAX_NAME
from flowstream.errors import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionFailed,
    StreamNotAvailable,
)
from flowstream.protocol import Address, Command, MetadataResponse
from flowstream.schema import text, whole
from flowstream.texts import describe, interrupts, shown

from .connection import ClientConnection, raise_for_code
from .settings import log

AddressResolver: TypeAlias = Callable[[Address], Address]
"""Maps the address that a broker advertises to an address that is reachable from here."""


@dataclass(frozen=True, slots=True)
class StreamNodes:
    """The nodes of a stream: its leader (None while it has none) and its replicas."""

    stream: str
    leader: Address | None
    replicas: tuple[Address, ...]

    @property
    def members(self) -> tuple[Address, ...]:
        """The leader, if there is one, and the replicas."""
        return self.replicas if self.leader is None else (self.leader, *self.replicas)

    def for_writer(self) -> Address:
        """The leader; raises StreamNotAvailable while the stream has none."""
        if self.leader is None:
            raise StreamNotAvailable(
                f'stream "{self.stream}" has no leader at the moment; try again', stream=self.stream
            )
        return self.leader

    def for_reader(
        self, choose: Callable[[tuple[Address, ...]], Address] = random.choice
    ) -> Address:
        """A replica, or else the leader; raises StreamNotAvailable while there is neither."""
        return choose(self.replicas) if self.replicas else self.for_writer()


def stream_nodes(response: MetadataResponse, stream: str) -> StreamNodes:
    """The nodes of one stream in the answer; raises an error such as StreamDoesNotExist."""
    for entry in response.streams:
        if entry.name == stream:
            raise_for_code(entry.code, f'find stream "{stream}"', stream=stream)
            brokers = response.brokers
            replicas = tuple(brokers[r] for r in entry.replicas if r in brokers)
            return StreamNodes(stream, brokers.get(entry.leader), replicas)
    raise StreamNotAvailable(
        f'the server did not say where stream "{stream}" is; try again', stream=stream
    )


class Nodes:
    """Opens connections to nodes by the resolver, learned addresses, or advertised addresses."""

    def __init__(
        self,
        open_connection: Callable[[Address, str], Awaitable[ClientConnection]],
        resolver: AddressResolver | None,
        attempts: int,
    ) -> None:
        self._open = open_connection
        self._resolver = resolver
        self._attempts = attempts
        self._learned: dict[Address, Address] = {}

    @property
    def known(self) -> Mapping[Address, Address]:
        """The address at which each node was reached, by the address that it advertises."""
        return self._learned

    def learn(self, connection: ClientConnection) -> None:
        advertised = connection.wire.advertised
        if advertised is not None and self._resolver is None:
            self._learned[advertised] = connection.address

    async def open_at(self, node: Address, role: str) -> ClientConnection:
        """A connection to exactly this node.

        Behind a load balancer any node may answer. So this reconnects until the wanted node
        answers, at most `node_attempts` times, and then raises ConnectionFailed.
        """
        others: set[Address] = set()
        for _ in range(self._attempts):
            where = self._where(node)
            try:
                connection = await self._open(where, role)
            except ConnectionFailed:
                if self._learned.pop(node, node) == node:
                    raise
                continue
            advertised = connection.wire.advertised
            if advertised is None or advertised == node:
                return connection
            log.debug("wanted %s, reached %s at %s", node, advertised, where)
            others.add(advertised)
            self._learned.pop(node, None)
            await connection.close()
        names = ", ".join(sorted(map(str, others)))
        raise ConnectionFailed(
            f"node {node} did not answer in {self._attempts} attempts, only "
            f"{names} did; pass address_resolver= or a larger node_attempts="
        )

    def _where(self, node: Address) -> Address:
        if self._resolver is not None:
            return _resolved(self._ask(self._resolver, node))
        return self._learned.get(node, node)

    def _ask(self, resolver: AddressResolver, node: Address) -> object:
        """What the `address_resolver` returns. If it raises, the node cannot be reached now."""
        try:
            return resolver(node)
        except BaseException as error:
            if interrupts(error):
                raise
            raise ConnectionFailed(
                f"address_resolver raised {describe(error)} for node {node}"
            ) from error


def _resolved(address: object) -> Address:
    """The checked result of an `address_resolver`."""
    if not isinstance(address, tuple) or len(address) != 2:
        raise ConfigurationError(
            f"address_resolver returned {shown(address)}: expected an Address(host, port)"
        )
    host, port = address
    text(1, MAX_NAME).check("address_resolver > host", host)
    whole(1, 65_535).check("address_resolver > port", port)
    return Address(host, port)


T = TypeVar("T")


class LocatorConnection:
    """A connection to any node: for locating streams and for stored offsets.

    It is opened on demand and opened again after a loss: to the configured addresses in their
    order, then to the nodes met since, and last to the one that was lost: a machine that is gone
    does not refuse, so that each attempt takes the whole `connect_timeout`. It works as long as one
    of them can be reached.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        known: Callable[[], Mapping[Address, Address]],
        open_connection: Callable[[Address], Awaitable[ClientConnection]],
    ) -> None:
        self._addresses = addresses
        self._known = known
        self._open = open_connection
        self._connection: ClientConnection | None = None
        self._lock = anyio.Lock()

    @property
    def connection(self) -> ClientConnection | None:
        return self._connection

    async def get(self) -> ClientConnection:
        """The connection, opened again if it was lost or does not answer.

        Raises ConnectionFailed with the errors of all addresses if no address can be reached.
        """
        async with self._lock:
            if self._connection is not None and self._connection.usable:
                if not self._connection.blocked:
                    return self._connection
                self._connection.abort("it did not answer a request", "silent")
            last: ConnectionFailed | None = None
            for address in self._in_order():
                try:
                    self._connection = await self._open(address)
                except ConnectionFailed as error:
                    if last is not None:
                        error = ConnectionFailed(f"{last}; {error}", lost=last.lost or error.lost)
                    last = error
                else:
                    return self._connection
            assert last is not None
            raise last

    def _in_order(self) -> list[Address]:
        addresses = list(dict.fromkeys((*self._addresses, *self._known().values())))
        lost = None if self._connection is None else self._connection.address
        return sorted(addresses, key=lambda address: address == lost)

    async def request(self, make: Callable[[int], Command], expect: type[T]) -> T:
        """The answer to a request, sent a second time if the connection turns out to be closed."""
        connection = await self.get()
        try:
            return await connection.request(make, expect)
        except ConnectionClosed:
            return await (await self.get()).request(make, expect)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
