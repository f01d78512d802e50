"""Which node to talk to, and how to reach it.

Brokers name themselves by what they advertise. That name need not resolve here (containers, load
balancers), so an address resolver, or what was learned from earlier connections, says where to
dial; and the node that answers is compared with the node that was wanted.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from flowstream.checks import MAX_NAME, check_text, check_whole
from flowstream.errors import ConfigurationError, ConnectionFailed, StreamNotAvailable
from flowstream.protocol import Address, MetadataResponse
from flowstream.texts import shown

from .codes import check
from .connection import ClientConnection
from .settings import log

AddressResolver: TypeAlias = Callable[[Address], Address]
"""Maps the address a broker advertises to the one that is reachable from here."""


@dataclass(frozen=True, slots=True)
class StreamNodes:
    """Where a stream lives: the node of its leader (None: there is none now) and its replicas."""

    stream: str
    leader: Address | None
    replicas: tuple[Address, ...]

    @property
    def members(self) -> tuple[Address, ...]:
        """The leader, if there is one now, and the replicas."""
        return self.replicas if self.leader is None else (self.leader, *self.replicas)

    def for_writer(self) -> Address:
        """The leader; raises StreamNotAvailable while there is none."""
        if self.leader is None:
            raise StreamNotAvailable(
                f'stream "{self.stream}" has no leader now; try again', stream=self.stream
            )
        return self.leader

    def for_reader(
        self, choose: Callable[[tuple[Address, ...]], Address] = random.choice
    ) -> Address:
        """A replica, else the leader; raises StreamNotAvailable while there is no member."""
        return choose(self.replicas) if self.replicas else self.for_writer()


def stream_nodes(response: MetadataResponse, stream: str) -> StreamNodes:
    """Reads one stream out of the answer; raises its code's error, such as StreamDoesNotExist."""
    for entry in response.streams:
        if entry.name == stream:
            check(entry.code, f'find stream "{stream}"', stream=stream)
            brokers = response.brokers
            replicas = tuple(brokers[r] for r in entry.replicas if r in brokers)
            return StreamNodes(stream, brokers.get(entry.leader), replicas)
    raise StreamNotAvailable(f'the server does not say where stream "{stream}" is', stream=stream)


class Nodes:
    """Opens connections to wanted nodes, by the resolver, learned addresses, or as advertised."""

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
        """Where each node that advertised itself was reached."""
        return self._learned

    def learn(self, connection: ClientConnection) -> None:
        advertised = connection.wire.advertised
        if advertised is not None and self._resolver is None:
            self._learned[advertised] = connection.address

    async def open_at(self, node: Address, role: str) -> ClientConnection:
        """A connection to exactly this node.

        Behind a load balancer the node that answers is chance: this reconnects until it is the
        wanted one, at most `node_attempts` times, then raises ConnectionFailed.
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
            log.debug("wanted %s:%d, reached %s:%d at %s:%d", *node, *advertised, *where)
            others.add(advertised)
            self._learned.pop(node, None)
            await connection.close()
        names = ", ".join(sorted(f"{host}:{port}" for host, port in others))
        raise ConnectionFailed(
            f"node {node.host}:{node.port} was not reached in {self._attempts} tries, only "
            f"{names}; give address_resolver= or a larger node_attempts="
        )

    def _where(self, node: Address) -> Address:
        if self._resolver is not None:
            return _resolved(self._resolver(node))
        return self._learned.get(node, node)


def _resolved(address: object) -> Address:
    """What an `address_resolver` returned, as an address that can be dialled."""
    if not isinstance(address, tuple) or len(address) != 2:
        raise ConfigurationError(
            f"address_resolver returned {shown(address)}: it returns an Address(host, port)"
        )
    host, port = address
    check_text("address_resolver returned host", host, 1, MAX_NAME)
    check_whole("address_resolver returned port", port, 1, 65_535)
    return Address(host, port)
