"""The environment: the connections of an application to a cluster, and all it does with them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from types import TracebackType
from typing import Annotated, Any

import anyio
from anyio.lowlevel import current_token

from flowstream.checks import check_stream
from flowstream.errors import ConfigurationError, EnvironmentClosed
from flowstream.schema import ANYTHING, NAME, a, bind, part, takes
from flowstream.telemetry import Telemetry
from flowstream.texts import shown
from flowstream.tls import Tls

from .admin import Administration
from .connecting.credentials import Credentials, PlainCredentials
from .connecting.locator import AddressResolver
from .connecting.manager import ConnectionManager
from .connecting.partitions import Partitions
from .connecting.recovery import State
from .connecting.settings import Settings
from .connecting.transport import Dial, tcp, tls_dial
from .connecting.url import DEFAULT_URL, StreamUrl
from .consuming.consumer import Consumer
from .consuming.options import (
    ConsumerArguments,
    ConsumerOptions,
    SharedConsumerOptions,
    SuperStreamConsumerArguments,
)
from .consuming.super_consumer import SuperStreamConsumer
from .publishing.options import PublisherArguments, SuperStreamPublisherArguments
from .publishing.publisher import Publisher
from .publishing.super_publisher import SuperStreamPublisher

TLS = a((Tls, ssl.SSLContext), "a Tls(...)")
CREDENTIALS = a(
    Credentials,
    "PlainCredentials(...), ExternalCredentials() or TokenCredentials(...)",
    secret=True,
)


@dataclass(frozen=True)
class EnvironmentArguments(Settings):
    """What `Environment(...)` takes."""

    url: Annotated[str | Sequence[str], ANYTHING, "one address, or several of the same cluster"] = (
        field(default=DEFAULT_URL, repr=False)  # it may hold a password
    )
    _: KW_ONLY
    tls: Annotated[
        Tls | ssl.SSLContext | None, TLS, "how a rabbitmq-stream+tls:// address is verified"
    ] = None
    credentials: Annotated[
        Credentials | None, CREDENTIALS, "instead of the URL's user and password"
    ] = None
    telemetry: Annotated[Telemetry | None, "what receives the events"] = None
    name: Annotated[str, NAME, "what brokers show of its connections"] = "flowstream"
    address_resolver: Annotated[
        AddressResolver | None, "maps what brokers advertise to what is reachable"
    ] = None


class Environment(Administration):
    """Connections to one broker or cluster, as an async context manager.

        async with Environment("rabbitmq-stream://guest:guest@localhost:5552/%2f") as env:
            await env.create_stream("orders", exist_ok=True)

    `url` has one or more addresses of a cluster: as `host1:5552,host2:5552` in one URL, or as a
    list of URLs. They are tried in this order, at the start and after a loss. For
    rabbitmq-stream+tls:// addresses TLS is used, and certificates are verified; `tls` has its
    options. `credentials` replace the user and password of the URL. `name` is part of
    the names of connections, which RabbitMQ's management UI shows. `address_resolver` maps the
    addresses that brokers advertise to reachable ones; `node_attempts` limits how often the client
    connects until the wanted node answers.

    Times are in seconds. A connection on which nothing arrives for two `heartbeat` intervals is
    closed. `connect_timeout`, `request_timeout` and `close_timeout` limit single steps, and
    `backoff` has the delays between attempts to recover. A publisher or consumer that cannot
    recover within `recovery_timeout` fails (None: it never gives up), or within `missing_timeout`
    while its stream does not exist. `frame_max` is the largest frame in bytes (0: no limit), and
    `per_connection` the number of publishers or consumers that share a connection.

    Entering the block connects. It raises ConnectionFailed, AuthenticationFailed or
    VirtualHostAccessFailed if that fails.
    """

    @takes(EnvironmentArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = bind(EnvironmentArguments, arguments, values)
        urls = [StreamUrl.parse(one) for one in _listed(options.url)]
        self.url: StreamUrl = _same_cluster(urls)
        self.telemetry: Telemetry = options.telemetry or Telemetry()
        self._manager = ConnectionManager(
            [address for one in urls for address in one.addresses],
            name=options.name,
            virtual_host=self.url.virtual_host,
            credentials=options.credentials or PlainCredentials(self.url.user, self.url.password),
            dial=_dial(self.url, options.tls, options),
            settings=options,
            telemetry=self.telemetry,
            resolver=options.address_resolver,
        )

    def __repr__(self) -> str:
        return f"<environment {self.url} {self.state.value}>"

    @property
    def state(self) -> State:
        """CONNECTING, OPEN, RECOVERING while the locator connection is lost, or CLOSED."""
        return self._manager.state.value

    async def wait_for(self, *states: State) -> State:
        """Returns once the environment is in one of these states."""
        if self.state not in states:
            self._manager.check()
        return await self._manager.state.wait(*states)

    def statistics(self) -> dict[str, int]:
        """The number of connections, publishers, subscriptions and background tasks."""
        return self._manager.statistics()

    async def __aenter__(self) -> Environment:
        manager = self._manager
        manager.check_not_closed()
        if manager.loop is not None:
            raise ConfigurationError(
                f'environment "{manager.name}" is open already; pass it on instead of '
                "entering it a second time"
            )
        manager.loop = current_token()
        await manager.owner.__aenter__()
        try:
            await manager.open()
        except BaseException as error:
            manager.loop = None
            await manager.owner.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self.state is State.CLOSED:
            return None
        self._manager.check()
        cause = "" if kind is None else f" because of {kind.__name__}"
        reason = f"was closed by the task {anyio.get_current_task().name!r}{cause}"
        with anyio.CancelScope(shield=True):
            await self._manager.close(reason)
        return await self._manager.owner.__aexit__(kind, error, trace)

    @contextmanager
    def used_by(
        self, who: str, closed: Callable[[EnvironmentClosed], None]
    ) -> Iterator[Environment]:
        """Calls `closed` with an error that names `who` if the environment is closed in the block.

        Raises if the environment is not open, is closed, or was opened on another event loop.
        """
        user = self._manager.use(who, closed)
        try:
            yield self
        finally:
            self._manager.release(user)

    # --- publishing and consuming ---------------------------------------------------------------

    @takes(PublisherArguments)
    def publisher(self, *arguments: Any, **values: Any) -> Publisher:
        """A publisher of one stream, as an async context manager."""
        options = bind(PublisherArguments, arguments, values)
        check_stream("stream", options.stream, self.url.virtual_host)
        return Publisher(self._manager, options.stream, options)

    @takes(ConsumerArguments)
    def consumer(self, *arguments: Any, **values: Any) -> Consumer:
        """A consumer of one stream, as an async context manager."""
        options = bind(ConsumerArguments, arguments, values)
        check_stream("stream", options.stream, self.url.virtual_host)
        return Consumer(self._manager, options.stream, options)

    @takes(SuperStreamPublisherArguments)
    def super_stream_publisher(self, *arguments: Any, **values: Any) -> SuperStreamPublisher:
        """A publisher of a super stream; see `SuperStreamPublisher`."""
        options = bind(SuperStreamPublisherArguments, arguments, values)
        partitions = Partitions(self._manager, options.super_stream, options.refresh)
        return SuperStreamPublisher(
            self._manager, partitions, options, key=options.key, routing=options.routing
        )

    @takes(SuperStreamConsumerArguments)
    def super_stream_consumer(self, *arguments: Any, **values: Any) -> SuperStreamConsumer:
        """A consumer of a super stream; see `SuperStreamConsumer`."""
        options = bind(SuperStreamConsumerArguments, arguments, values)
        partitions = Partitions(self._manager, options.super_stream, options.refresh)
        shared = part(SharedConsumerOptions, options)
        return SuperStreamConsumer(self._manager, partitions, ConsumerOptions(**vars(shared)))


def _listed(url: object) -> Sequence[Any]:
    return [url] if isinstance(url, str) or not isinstance(url, Sequence) else url


def _same_cluster(urls: Sequence[StreamUrl]) -> StreamUrl:
    """The first URL; raises ConfigurationError unless all have the same user and virtual host."""
    if not urls:
        raise ConfigurationError("url: expected at least one address")
    first = urls[0]
    for other in urls[1:]:
        for same in ("tls", "user", "password", "virtual_host"):
            if getattr(other, same) != getattr(first, same):
                raise ConfigurationError(
                    f"url: {first} and {other} have a different {same}; the addresses of an "
                    "environment must be those of one cluster"
                )
    return first


def _dial(url: StreamUrl, tls: Tls | ssl.SSLContext | None, settings: Settings) -> Dial:
    if not url.tls:
        if tls is not None:
            raise ConfigurationError(
                f"tls={shown(tls)}: it needs a rabbitmq-stream+tls:// address, not {url}"
            )
        return tcp(settings.connect_timeout)
    if isinstance(tls, ssl.SSLContext):
        return tls_dial(settings.connect_timeout, tls)
    options = tls or Tls()
    return tls_dial(settings.connect_timeout, options.context(), options.server_name)
