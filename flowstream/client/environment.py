"""The environment: the connections of an application to a cluster, and all it does with them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import anyio
from anyio.lowlevel import current_token

from flowstream.checks import check_callable, check_kind, check_name, check_stream
from flowstream.errors import ConfigurationError, EnvironmentClosed
from flowstream.protocol import Compression
from flowstream.telemetry import Telemetry

from .admin import Administration
from .connecting.credentials import Credentials, PlainCredentials
from .connecting.locator import AddressResolver
from .connecting.manager import ConnectionManager
from .connecting.partitions import Partitions
from .connecting.recovery import State
from .connecting.settings import Backoff, Settings
from .connecting.transport import Dial, Tls, tcp, tls_dial
from .connecting.url import DEFAULT_URL, StreamUrl
from .consuming.consumer import Consumer
from .consuming.options import (
    AutoTracking,
    ConsumerOptions,
    CreditStrategy,
    Match,
    Offset,
    OnActive,
    OnInactive,
    OnTruncated,
    Settled,
    credit_strategy,
    offset_spec,
)
from .consuming.super_consumer import SuperStreamConsumer
from .publishing.options import OnConfirm, OnError, PublisherOptions
from .publishing.publisher import Publisher
from .publishing.super_publisher import KeyOf, Routing, SuperStreamPublisher


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

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        tls: Tls | ssl.SSLContext | None = None,
        credentials: Credentials | None = None,
        telemetry: Telemetry | None = None,
        name: str = "flowstream",
        address_resolver: AddressResolver | None = None,
        heartbeat: int = 60,
        frame_max: int = 1_048_576,
        connect_timeout: float = 10.0,
        request_timeout: float = 10.0,
        close_timeout: float = 5.0,
        backoff: Backoff | None = None,
        recovery_timeout: float | None = None,
        missing_timeout: float = 30.0,
        per_connection: int = 256,
        node_attempts: int = 10,
    ) -> None:
        urls = [StreamUrl.parse(one) for one in _listed(url)]
        self.url = _same_cluster(urls)
        check_name("name", name)
        check_callable("address_resolver", address_resolver)
        check_kind("tls", tls, (Tls, ssl.SSLContext), "a Tls(...)", optional=True)
        check_kind(
            "credentials", credentials, Credentials,
            "PlainCredentials(...), ExternalCredentials() or TokenCredentials(...)",
            optional=True, secret=True,
        )  # fmt: skip
        check_kind("telemetry", telemetry, Telemetry, "a Telemetry(...)", optional=True)
        self.telemetry = telemetry or Telemetry()
        settings = Settings(
            heartbeat=heartbeat,
            frame_max=frame_max,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            close_timeout=close_timeout,
            backoff=Backoff() if backoff is None else backoff,
            recovery_timeout=recovery_timeout,
            missing_timeout=missing_timeout,
            per_connection=per_connection,
            node_attempts=node_attempts,
        )
        self._manager = ConnectionManager(
            [address for one in urls for address in one.addresses],
            name=name,
            virtual_host=self.url.virtual_host,
            credentials=credentials or PlainCredentials(self.url.user, self.url.password),
            dial=_dial(self.url, tls, settings),
            settings=settings,
            telemetry=self.telemetry,
            resolver=address_resolver,
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

    def publisher(
        self,
        stream: str,
        *,
        reference: str | None = None,
        max_unconfirmed: int = 10_000,
        max_unconfirmed_bytes: int = 64 * 1024 * 1024,
        confirm_timeout: float | None = 30.0,
        filter_value: Callable[[bytes], str | None] | None = None,
        sub_entry_size: int = 0,
        compression: Compression = Compression.NONE,
        on_confirm: OnConfirm | None = None,
        on_error: OnError | None = None,
    ) -> Publisher:
        """A publisher of one stream, as an async context manager; see `PublisherOptions`."""
        check_stream("stream", stream, self.url.virtual_host)
        options = PublisherOptions(
            reference=reference,
            max_unconfirmed=max_unconfirmed,
            max_unconfirmed_bytes=max_unconfirmed_bytes,
            confirm_timeout=confirm_timeout,
            filter_value=filter_value,
            sub_entry_size=sub_entry_size,
            compression=compression,
            on_confirm=on_confirm,
            on_error=on_error,
        )
        return Publisher(self._manager, stream, options)

    def consumer(
        self,
        stream: str,
        *,
        offset: Offset = "first",
        credit: int | CreditStrategy = 10,
        name: str | None = None,
        tracking: AutoTracking | str | None = None,
        filter_values: Sequence[str] = (),
        match_unfiltered: bool = False,
        match: Match | None = None,
        single_active: bool = False,
        super_stream: str | None = None,
        on_active: OnActive | None = None,
        on_inactive: OnInactive | None = None,
        hand_over_timeout: float = 30.0,
        keep_offset: bool = False,
        on_truncated: OnTruncated = "error",
        settled: Settled | None = None,
    ) -> Consumer:
        """A consumer of one stream, as an async context manager; see `ConsumerOptions`."""
        check_stream("stream", stream, self.url.virtual_host)
        options = ConsumerOptions(
            offset=offset_spec(offset),
            credit=credit_strategy(credit),
            name=name,
            tracking=tracking,
            filter_values=filter_values,
            match_unfiltered=match_unfiltered,
            match=match,
            single_active=single_active,
            super_stream=super_stream,
            on_active=on_active,
            on_inactive=on_inactive,
            hand_over_timeout=hand_over_timeout,
            keep_offset=keep_offset,
            on_truncated=on_truncated,
            settled=settled,
        )
        return Consumer(self._manager, stream, options)

    def super_stream_publisher(
        self,
        super_stream: str,
        *,
        key: KeyOf | None = None,
        routing: Routing = "hash",
        refresh: float = 60.0,
        reference: str | None = None,
        max_unconfirmed: int = 10_000,
        max_unconfirmed_bytes: int = 64 * 1024 * 1024,
        confirm_timeout: float | None = 30.0,
        filter_value: Callable[[bytes], str | None] | None = None,
        sub_entry_size: int = 0,
        compression: Compression = Compression.NONE,
        on_confirm: OnConfirm | None = None,
        on_error: OnError | None = None,
    ) -> SuperStreamPublisher:
        """A publisher of a super stream; see `SuperStreamPublisher` and `PublisherOptions`."""
        check_name("super_stream", super_stream)
        check_callable("key", key)
        options = PublisherOptions(
            reference=reference,
            max_unconfirmed=max_unconfirmed,
            max_unconfirmed_bytes=max_unconfirmed_bytes,
            confirm_timeout=confirm_timeout,
            filter_value=filter_value,
            sub_entry_size=sub_entry_size,
            compression=compression,
            on_confirm=on_confirm,
            on_error=on_error,
        )
        partitions = Partitions(self._manager, super_stream, refresh)
        return SuperStreamPublisher(self._manager, partitions, options, key=key, routing=routing)

    def super_stream_consumer(
        self,
        super_stream: str,
        *,
        offset: Offset = "first",
        credit: int | CreditStrategy = 10,
        refresh: float = 60.0,
        name: str | None = None,
        tracking: AutoTracking | str | None = None,
        filter_values: Sequence[str] = (),
        match_unfiltered: bool = False,
        match: Match | None = None,
        single_active: bool = False,
        on_active: OnActive | None = None,
        on_inactive: OnInactive | None = None,
        hand_over_timeout: float = 30.0,
        keep_offset: bool = False,
        on_truncated: OnTruncated = "error",
        settled: Settled | None = None,
    ) -> SuperStreamConsumer:
        """A consumer of a super stream; see `SuperStreamConsumer` and `ConsumerOptions`."""
        check_name("super_stream", super_stream)
        options = ConsumerOptions(
            offset=offset_spec(offset),
            credit=credit_strategy(credit),
            name=name,
            tracking=tracking,
            filter_values=filter_values,
            match_unfiltered=match_unfiltered,
            match=match,
            single_active=single_active,
            on_active=on_active,
            on_inactive=on_inactive,
            hand_over_timeout=hand_over_timeout,
            keep_offset=keep_offset,
            on_truncated=on_truncated,
            settled=settled,
        )
        partitions = Partitions(self._manager, super_stream, refresh)
        return SuperStreamConsumer(self._manager, partitions, options)


def _listed(url: object) -> Sequence[Any]:
    return [url] if isinstance(url, str) or not isinstance(url, Sequence) else url


def _same_cluster(urls: Sequence[StreamUrl]) -> StreamUrl:
    """The first URL; raises ConfigurationError unless all have the same user and virtual host."""
    if not urls:
        raise ConfigurationError("url: expected at least one address")
    first = urls[0]
    for other in urls[1:]:
        for part in ("tls", "user", "password", "virtual_host"):
            if getattr(other, part) != getattr(first, part):
                raise ConfigurationError(
                    f"url: {first} and {other} have a different {part}; the addresses of an "
                    "environment must be those of one cluster"
                )
    return first


def _dial(url: StreamUrl, tls: Tls | ssl.SSLContext | None, settings: Settings) -> Dial:
    if not url.tls:
        if tls is not None:
            raise ConfigurationError(f"tls= needs a rabbitmq-stream+tls:// address, not {url}")
        return tcp(settings.connect_timeout)
    if isinstance(tls, ssl.SSLContext):
        return tls_dial(settings.connect_timeout, tls)
    options = tls or Tls()
    return tls_dial(settings.connect_timeout, options.context(), options.server_name)
