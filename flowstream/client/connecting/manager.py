"""What all publishers and consumers of an environment share: connections, tasks, and its state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final, TypeAlias

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from flowstream.errors import (
    ConfigurationError,
    ConnectionFailed,
    EnvironmentClosed,
    FlowstreamError,
    StreamDoesNotExist,
)
from flowstream.protocol import Address, Metadata, MetadataResponse
from flowstream.telemetry import ConnectionLost, ConnectionOpened, Telemetry
from flowstream.texts import clipped

from .connection import ClientConnection
from .credentials import Credentials
from .handshake import can_renew, keep_authenticated, open_connection
from .locator import AddressResolver, LocatorConnection, Nodes, StreamNodes, stream_nodes
from .outages import Outages
from .pool import Pool
from .recovery import State, StateCell
from .settings import Settings, log
from .tasks import TaskOwner
from .transport import Dial
from .users import PublisherUser, SubscriptionUser

EMBEDDED = "flowstream embedded broker"
"""The product name that the embedded broker sends in its properties."""
UNSETTLED = 30.0
"""Seconds after a lost connection in which streams may have no leader."""
SHOWN = 100
"""The most characters of a broker's property in a log record."""

User: TypeAlias = tuple[str, Callable[[EnvironmentClosed], None]]
"""The description of a user of the environment, and what to call when it is closed."""


class ConnectionManager:
    """The connections of an environment.

    Each role has its own: locating, tracking, publishing, consuming. So a consumer that does not
    read cannot block a publisher, and a full socket cannot block stored offsets.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
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
        self.owner: Final = TaskOwner()
        self.connections: set[ClientConnection] = set()
        self.not_kept: set[tuple[str, str]] = set()
        """References and streams whose offsets have no second copy: see consuming/tracking.py."""
        self._lost_at: float | None = None
        self._reached: set[Address] = set()
        """Addresses at which a broker has answered."""
        self.probes: set[object] = set()
        """Subscriptions that only read where a stream begins or ends: not counted as consumers."""
        self.loop: EventLoopToken | None = None
        self._thread = 0
        self._users: dict[object, User] = {}
        self._closed_by = ""
        self.virtual_host = virtual_host
        self._credentials = credentials
        self.dial = dial
        self._numbers = count(1)
        self.outages: Final = Outages(name, settings, telemetry, self.owner.spawn)
        self.state: StateCell = self.state_of("environment", name)
        self.nodes: Final = Nodes(self._open, resolver, settings.node_attempts)
        self.locator: LocatorConnection = LocatorConnection(
            addresses, lambda: self.nodes.known, self._open_locator
        )
        self.tracking: Final = LocatorConnection(
            addresses, lambda: self.nodes.known, lambda address: self._open(address, "tracking")
        )
        self.publishing: Pool[PublisherUser] = Pool(
            lambda node: self.nodes.open_at(node, "publishing"), lambda c: c.publishers
        )
        self.consuming: Pool[SubscriptionUser] = Pool(
            lambda node: self.nodes.open_at(node, "consuming"), lambda c: c.subscriptions
        )

    def state_of(self, kind: str, name: str) -> StateCell:
        """A new state of a publisher or consumer of this environment, or of the environment."""
        return StateCell(kind, name, self.telemetry, environment=self.name, watcher=self.outages)

    async def locate(self, stream: str) -> StreamNodes:
        """The nodes of a stream; raises StreamDoesNotExist, StreamNotAvailable and others."""
        answer = await self.locator.request(lambda c: Metadata(c, (stream,)), MetadataResponse)
        return stream_nodes(answer, stream)

    def beside(self, connection: ClientConnection) -> ClientConnection:
        """A connection to the same node that consumes nothing; without one, the connection itself.

        Brokers answer behind what they are sending, so an answer takes longer where they send much.
        """
        node = connection.wire.advertised
        others = () if node is None else (self.locator.connection, self.tracking.connection)
        for other in others:
            if other is None or other.blocked or not other.usable:
                continue
            if other.wire.advertised == node:
                return other
        return connection

    async def check_leader(self, stream: str) -> None:
        """Raises StreamNotAvailable if nodes were lost lately and the stream has no leader.

        Whether the stream exists is for the request that follows to say.
        """
        lost_at = self._lost_at
        if lost_at is not None and anyio.current_time() - lost_at < UNSETTLED:
            with suppress(StreamDoesNotExist):
                (await self.locate(stream)).for_writer()

    # --- checks ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises unless the environment is open on the current event loop."""
        self.check_not_closed()
        if self.loop is None:
            raise ConfigurationError(
                f'environment "{self.name}" is not open: use it inside `async with environment:`'
            )
        if self.loop != _this_loop():
            raise self._elsewhere()

    def check_thread(self) -> None:
        """Raises on another thread than the environment's, where a wait would never end.

        It is much cheaper than `check`, and another event loop is usually on another thread.
        """
        if self._thread != threading.get_ident():
            self.check()
            raise self._elsewhere()

    def _elsewhere(self) -> ConfigurationError:
        return ConfigurationError(
            f'environment "{self.name}" was opened on another event loop (or thread): '
            "open an environment on each loop that uses one"
        )

    def check_not_closed(self) -> None:
        if self.state.value is State.CLOSED:
            raise EnvironmentClosed(
                f'environment "{self.name}" {self._closed_by} and can no longer be used; open a '
                "new one"
            )

    def use(self, who: str, closed: Callable[[EnvironmentClosed], None]) -> object:
        """Registers a user. `closed` is called if the environment is closed before `release`.

        Raises as `check` does.
        """
        self.check()
        user = object()
        self._users[user] = (who, closed)
        return user

    def release(self, user: object) -> None:
        """Removes a user; an unknown one is ignored."""
        self._users.pop(user, None)

    async def open(self) -> None:
        """Opens the locator connection; raises if that fails."""
        self._thread = threading.get_ident()
        connection = await self.locator.get()
        self.state.set(State.OPEN)
        self._log_connected(connection)

    def _log_connected(self, connection: ClientConnection) -> None:
        """Logs what the broker says it is; never credentials."""
        properties = connection.wire.peer_properties
        product, version, cluster = (
            clipped(str(properties.get(name, "")), SHOWN)
            for name in ("product", "version", "cluster_name")
        )
        embedded = product == EMBEDDED
        which = f"the embedded broker, which behaves like RabbitMQ {version}"
        if not embedded:
            which = f"{product} {version}{f', cluster {cluster}' if cluster else ''}"
        address = str(connection.address)
        log.info(
            "environment %r is connected to %s: %s, virtual host %r", self.name, address, which,
            self.virtual_host,
            extra={"environment": self.name, "address": address, "broker_product": product,
                   "broker_version": version, "embedded": embedded},
        )  # fmt: skip

    async def _reconnect_locator(self) -> None:
        """Opens the locator connection again before it is needed."""
        attempt = 0
        while self.state.value is State.RECOVERING:
            attempt += 1
            try:
                connection = await self.locator.get()
            except FlowstreamError as error:
                self.state.failed(error)
                log.debug("environment %r: %s", self.name, error)
                await anyio.sleep(self.settings.pause(attempt))
            else:
                if connection.usable:
                    self.state.set(State.OPEN)

    def statistics(self) -> dict[str, int]:
        return {
            "connections": len(self.connections),
            "publishers": sum(len(c.publishers) for c in self.connections),
            "subscriptions": sum(
                user not in self.probes
                for c in self.connections
                for user in c.subscriptions.users()
            ),
            "tasks": len(self.owner),
        }

    async def close(self, reason: str) -> None:
        """Informs all users, then closes all connections, each within `close_timeout`."""
        self._closed_by = reason
        self.outages.close()
        self.state.set(State.CLOSED)
        for who, closed in list(self._users.values()):
            closed(
                EnvironmentClosed(
                    f'environment "{self.name}" {reason} while {who} was running; close everything '
                    "that uses an environment before its block is left"
                )
            )
        self._users.clear()
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
            self.owner.spawn(self._reconnect_locator, name="locator")

    async def _open(self, address: Address, role: str) -> ClientConnection:
        self.check_not_closed()
        try:
            connection = await open_connection(
                self.dial,
                address,
                role,
                name=f"{self.name}-{role}-{next(self._numbers)}",
                virtual_host=self.virtual_host,
                credentials=self._credentials,
                settings=self.settings,
                owner=self.owner,
            )
        except FlowstreamError as error:
            self.check_not_closed()  # closing the environment ends a handshake that goes on
            if isinstance(error, ConnectionFailed) and address in self._reached:
                error.lost = True
            raise
        self._reached.add(address)
        self.connections.add(connection)
        if self._credentials.expires and can_renew(connection):
            arguments = (connection, self._credentials, self.settings)
            self.owner.spawn(keep_authenticated, *arguments, name=f"credentials of {role}")
        connection.when_lost(self._lost)
        if self.telemetry.active:
            self.telemetry.emit(ConnectionOpened(str(address), role))
        return connection

    def _lost(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        address = str(connection.address)
        log.debug("%r: %s", connection, connection.error)
        if connection.lost_unasked:
            self._lost_at = anyio.current_time()
        if self.telemetry.active:
            error = connection.error
            cause = "" if error is None else error.cause
            self.telemetry.emit(ConnectionLost(address, connection.role, str(error), cause))


def _this_loop() -> EventLoopToken | None:
    try:
        return current_token()
    except anyio.NoEventLoopError:
        return None
