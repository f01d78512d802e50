"""What every publisher and consumer of an environment stands on: tasks, pools, locating."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import anyio

from flowstream.errors import FlowstreamError
from flowstream.protocol import Address, Metadata, MetadataResponse
from flowstream.telemetry import ConnectionLost, ConnectionOpened, Telemetry

from .connection import ClientConnection, PublisherUser, SubscriptionUser
from .credentials import Credentials
from .nodes import AddressResolver, Nodes, StreamNodes, stream_nodes
from .opening import can_renew, keep_authenticated, open_connection
from .pool import Pool
from .seed import SeedConnection
from .settings import Settings, log
from .states import State, StateCell
from .tasks import TaskOwner
from .transport import Dial


class Core:
    """Connections by role: locating, tracking, publishing and consuming never share one."""

    def __init__(
        self,
        seeds: Sequence[Address],
        *,
        name: str,
        virtual_host: str,
        credentials: Credentials,
        dial: Dial,
        settings: Settings,
        telemetry: Telemetry,
        resolver: AddressResolver | None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.telemetry = telemetry
        self.owner = TaskOwner()
        self.connections: set[ClientConnection] = set()
        self._virtual_host = virtual_host
        self._credentials = credentials
        self._dial = dial
        self._numbers = count(1)
        self.state = StateCell("environment", name, telemetry)
        self.nodes = Nodes(self._open, resolver, settings.node_attempts)
        self.locator: SeedConnection = SeedConnection(
            seeds, lambda: self.nodes.known, self._open_locator
        )
        self.tracking = SeedConnection(
            seeds, lambda: self.nodes.known, lambda address: self._open(address, "tracking")
        )
        self.publishing: Pool[PublisherUser] = Pool(
            lambda node: self.nodes.open_at(node, "publishing"), lambda c: c.publishers
        )
        self.consuming: Pool[SubscriptionUser] = Pool(
            lambda node: self.nodes.open_at(node, "consuming"), lambda c: c.subscriptions
        )

    async def locate(self, stream: str) -> StreamNodes:
        """The nodes of a stream; raises StreamDoesNotExist, StreamNotAvailable and the like."""
        answer = await self.locator.request(lambda c: Metadata(c, (stream,)), MetadataResponse)
        return stream_nodes(answer, stream)

    async def open(self) -> None:
        """Connects the locator; raises why it does not work."""
        await self.locator.get()
        self.state.set(State.OPEN)

    async def _heal(self) -> None:
        """Connects the locator again, so that it is there before it is needed."""
        attempt = 0
        while self.state.value is State.RECOVERING:
            attempt += 1
            try:
                connection = await self.locator.get()
            except FlowstreamError as error:
                log.info("environment %s: %s", self.name, error)
                await anyio.sleep(self.settings.backoff.delay(attempt))
            else:
                if connection.usable:
                    self.state.set(State.OPEN)

    def statistics(self) -> dict[str, int]:
        return {
            "connections": len(self.connections),
            "publishers": sum(len(c.publishers) for c in self.connections),
            "subscriptions": sum(len(c.subscriptions) for c in self.connections),
            "tasks": len(self.owner),
        }

    async def close(self) -> None:
        """Closes every connection; bounded by `close_timeout`."""
        self.state.set(State.CLOSED)
        await self.publishing.close()
        await self.consuming.close()
        await self.tracking.close()
        await self.locator.close()

    async def _open_locator(self, address: Address) -> ClientConnection:
        connection = await self._open(address, "locating")
        self.nodes.learn(connection)
        connection.when_lost(self._locator_lost)
        return connection

    def _locator_lost(self, connection: ClientConnection) -> None:
        if self.state.value is State.OPEN:
            self.state.set(State.RECOVERING, str(connection.error))
            self.owner.spawn(self._heal, name="locator")

    async def _open(self, address: Address, role: str) -> ClientConnection:
        connection = await open_connection(
            self._dial,
            address,
            role,
            name=f"{self.name}-{role}-{next(self._numbers)}",
            virtual_host=self._virtual_host,
            credentials=self._credentials,
            settings=self.settings,
            owner=self.owner,
        )
        self.connections.add(connection)
        if self._credentials.expires and can_renew(connection):
            arguments = (connection, self._credentials, self.settings)
            self.owner.spawn(keep_authenticated, *arguments, name=f"credentials of {role}")
        connection.when_lost(self._lost)
        if self.telemetry.active:
            self.telemetry.emit(ConnectionOpened(f"{address.host}:{address.port}", role))
        return connection

    def _lost(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        address = f"{connection.address.host}:{connection.address.port}"
        log.debug("%r: %s", connection, connection.error)
        if self.telemetry.active:
            error = connection.error
            cause = "" if error is None else error.cause
            self.telemetry.emit(ConnectionLost(address, connection.role, str(error), cause))
