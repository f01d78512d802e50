"""What every publisher and consumer of an environment stands on: tasks, pools, locating."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeAlias

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from flowstream.errors import ConfigurationError, EnvironmentClosed, FlowstreamError
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
"""The product that the embedded broker calls itself."""
TOLD = 100
"""Characters of what a broker tells about itself in a log record."""

User: TypeAlias = tuple[str, Callable[[EnvironmentClosed], None]]
"""Who uses an environment, and what to call when it is closed."""


class ConnectionManager:
    """Connections by role: locating, tracking, publishing and consuming never share one."""

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
        self.owner = TaskOwner()
        self.connections: set[ClientConnection] = set()
        self.not_kept: set[tuple[str, str]] = set()
        self.probes: set[object] = set()
        """Subscriptions that only look where a stream begins or ends: they are no consumer's."""
        """References and streams whose offsets are stored once: see tracking.py."""
        self.loop: EventLoopToken | None = None
        self._thread = 0
        self._users: dict[object, User] = {}
        self._closed_by = ""
        self.virtual_host = virtual_host
        self._credentials = credentials
        self._dial = dial
        self._numbers = count(1)
        self.outages = Outages(name, settings, telemetry, self.owner.spawn)
        self.state = self.state_of("environment", name)
        self.nodes = Nodes(self._open, resolver, settings.node_attempts)
        self.locator: LocatorConnection = LocatorConnection(
            addresses, lambda: self.nodes.known, self._open_locator
        )
        self.tracking = LocatorConnection(
            addresses, lambda: self.nodes.known, lambda address: self._open(address, "tracking")
        )
        self.publishing: Pool[PublisherUser] = Pool(
            lambda node: self.nodes.open_at(node, "publishing"), lambda c: c.publishers
        )
        self.consuming: Pool[SubscriptionUser] = Pool(
            lambda node: self.nodes.open_at(node, "consuming"), lambda c: c.subscriptions
        )

    def state_of(self, kind: str, name: str) -> StateCell:
        """The state of something of this environment."""
        return StateCell(kind, name, self.telemetry, environment=self.name, outages=self.outages)

    async def locate(self, stream: str) -> StreamNodes:
        """The nodes of a stream; raises StreamDoesNotExist, StreamNotAvailable and the like."""
        answer = await self.locator.request(lambda c: Metadata(c, (stream,)), MetadataResponse)
        return stream_nodes(answer, stream)

    # --- whether it can be used -------------------------------------------------------------------

    def check(self) -> None:
        """Raises unless the environment is open, on the event loop that this is called on."""
        self.check_not_closed()
        if self.loop is None:
            raise ConfigurationError(
                f'environment "{self.name}" is not open: use it inside of `async with environment:`'
            )
        if self.loop != _this_loop():
            raise self._elsewhere()

    def check_thread(self) -> None:
        """Raises on another thread than the environment's, where waiting would never end.

        It costs next to nothing, and another loop is nearly always on another thread.
        """
        if self._thread != threading.get_ident():
            raise self._elsewhere()

    def _elsewhere(self) -> ConfigurationError:
        return ConfigurationError(
            f'environment "{self.name}" was opened on another event loop (or thread): '
            "open an environment on each loop that uses one"
        )

    def check_not_closed(self) -> None:
        if self.state.value is State.CLOSED:
            raise EnvironmentClosed(
                f'environment "{self.name}" {self._closed_by}: nothing can use it any more; open '
                "a new one"
            )

    def use(self, who: str, closed: Callable[[EnvironmentClosed], None]) -> object:
        """`closed` is called if the environment is closed before `release` is; checks it first."""
        self.check()
        user = object()
        self._users[user] = (who, closed)
        return user

    def release(self, user: object) -> None:
        """The user has ended, or never was one."""
        self._users.pop(user, None)

    async def open(self) -> None:
        """Connects the locator; raises why it does not work."""
        self._thread = threading.get_ident()
        connection = await self.locator.get()
        self.state.set(State.OPEN)
        self._say_connected(connection)

    def _say_connected(self, connection: ClientConnection) -> None:
        """What it is connected to, as the broker itself tells it; never with credentials."""
        told = connection.wire.peer_properties
        product, version, cluster = (
            clipped(str(told.get(name, "")), TOLD)
            for name in ("product", "version", "cluster_name")
        )
        embedded = product == EMBEDDED
        which = f"the embedded broker, which behaves like RabbitMQ {version}"
        if not embedded:
            which = f"{product} {version}{f', cluster {cluster}' if cluster else ''}"
        address = f"{connection.address.host}:{connection.address.port}"
        log.info(
            "environment %r is connected to %s: %s, virtual host %r", self.name, address, which,
            self.virtual_host,
            extra={"environment": self.name, "address": address, "broker_product": product,
                   "broker_version": version, "embedded": embedded},
        )  # fmt: skip

    async def _heal(self) -> None:
        """Connects the locator again, so that it is there before it is needed."""
        attempt = 0
        while self.state.value is State.RECOVERING:
            attempt += 1
            try:
                connection = await self.locator.get()
            except FlowstreamError as error:
                self.state.failed(error)
                log.debug("environment %r: %s", self.name, error)
                await anyio.sleep(self.settings.backoff.delay(attempt))
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
        """Ends who uses it, then closes every connection; bounded by `close_timeout`."""
        self._closed_by = reason
        self.outages.close()
        self.state.set(State.CLOSED)
        for who, closed in list(self._users.values()):
            closed(
                EnvironmentClosed(
                    f'environment "{self.name}" {reason} while {who} was running: leave its block '
                    "after everything that uses it has ended"
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
            self.owner.spawn(self._heal, name="locator")

    async def _open(self, address: Address, role: str) -> ClientConnection:
        self.check_not_closed()
        connection = await open_connection(
            self._dial,
            address,
            role,
            name=f"{self.name}-{role}-{next(self._numbers)}",
            virtual_host=self.virtual_host,
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


def _this_loop() -> EventLoopToken | None:
    try:
        return current_token()
    except anyio.NoEventLoopError:
        return None
