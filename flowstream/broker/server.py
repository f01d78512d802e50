"""The broker as a server: it listens, accepts connections, and opens and closes its store."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import anyio
from anyio import TypedAttributeProvider
from anyio.abc import (
    ByteStream,
    SocketAttribute,
    SocketListener,
    SocketStream,
    TaskStatus,
)
from anyio.streams.tls import TLSStream

from flowstream.blocks import BlockTasks
from flowstream.broker.data_dir import DataDirStore
from flowstream.broker.handlers import HANDLERS
from flowstream.broker.node import Limits, Node
from flowstream.broker.records import Contents
from flowstream.broker.session import Session
from flowstream.broker.store import MemoryStore, Store
from flowstream.errors import ConfigurationError
from flowstream.protocol import Address

_log = logging.getLogger("flowstream.broker")

DEFAULT_USERS = {"guest": "guest"}
_BACKLOG = 1024
_ACCEPT_PAUSE = 0.1
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True, slots=True)
class BrokerStatistics:
    """Figures of a broker; the rates are messages per second, measured over the last second."""

    connections: int
    streams: int
    messages_in: int
    messages_out: int
    rate_in: float
    rate_out: float
    unconfirmed: int
    bytes_used: int


class Broker:
    """A broker for one machine that speaks the stream protocol of RabbitMQ.

    `data` is the data directory, which only one broker at a time can use; None keeps everything in
    memory. `port=0` takes a free port. `tls` makes it a TLS listener. `users` maps user names to
    passwords; guest with the password guest unless given.

    Use it as an async context manager, or start `serve` in a task group:

        async with Broker(port=0) as broker:
            print(broker.url)
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 5552,
        *,
        data: str | Path | None = None,
        users: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.host = host
        self.port: int = port
        self._data = None if data is None else Path(data)
        self._users = dict(DEFAULT_USERS if users is None else users)
        self._tls = tls
        self._limits = limits or Limits()
        self._node: Node | None = None
        self._last = BrokerStatistics(0, 0, 0, 0, 0.0, 0.0, 0, 0)
        self._tasks: BlockTasks | None = None

    @property
    def url(self) -> str:
        """Where clients connect, with the first user's name and password."""
        scheme = "rabbitmq-stream" if self._tls is None else "rabbitmq-stream+tls"
        user = ":".join(quote(it, safe="") for it in next(iter(self._users.items()), ("", "")))
        return f"{scheme}://{user}@{Address(self._host, self.port)}/%2f"

    @property
    def _host(self) -> str:
        return "localhost" if self.host in _WILDCARDS else self.host

    @property
    def _open_to_guests(self) -> bool:
        """Whether a client needs nothing but the address to connect."""
        return self._users == DEFAULT_USERS and self._tls is None

    def statistics(self) -> BrokerStatistics:
        """The figures of now; while the broker does not run, the totals of its last run."""
        node = self._node
        if node is None:
            return self._last
        return BrokerStatistics(
            connections=len(node.connections),
            streams=len(node.catalog.streams),
            messages_in=node.committer.messages_in,
            messages_out=node.messages_out,
            rate_in=node.rates[0],
            rate_out=node.rates[1],
            unconfirmed=sum(it.unconfirmed for it in node.connections),
            bytes_used=node.bytes_used,
        )

    async def __aenter__(self) -> Self:
        self._tasks = await BlockTasks().__aenter__()
        try:
            await self._tasks.start(self.serve)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        failed = tasks.cancelled
        tasks.cancel()
        if failed:
            return await tasks.__aexit__(exc_type, exc, traceback)
        # The block's own exception is not the group's: it leaves without an ExceptionGroup.
        await tasks.__aexit__(None, None, None)
        return None

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `task_status` is started when clients can connect.

        Raises ConfigurationError if the address or the data directory cannot be used, and
        StoreFailed if the disk cannot be written to.
        """
        store, contents = await self._open()
        try:
            self._node = node = Node(store, contents, self._users, self._limits)
            async with AsyncExitStack() as exits:
                listeners = [await exits.enter_async_context(it) for it in await self._listen()]
                if isinstance(store, DataDirStore) and self._open_to_guests:
                    await anyio.to_thread.run_sync(store.announce, Address(self._host, self.port))
                tasks = await exits.enter_async_context(anyio.create_task_group())
                tasks.start_soon(node.run)
                for listener in listeners:
                    tasks.start_soon(self._accept, listener)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            figures = self.statistics()
            self._last = replace(figures, connections=0, rate_in=0.0, rate_out=0.0, unconfirmed=0)
            self._node = None
            if store.blocking:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(store.close)

    async def _open(self) -> tuple[Store, Contents]:
        if self._data is None:
            return MemoryStore(), Contents([], {}, 1)
        data_dir = self._data

        def load() -> tuple[Store, Contents]:
            store = DataDirStore(data_dir)
            try:
                return store, store.load()
            except BaseException:
                store.close()
                raise

        return await anyio.to_thread.run_sync(load)

    async def _listen(self) -> list[SocketListener]:
        try:
            multi = await anyio.create_tcp_listener(
                local_host=self.host or None, local_port=self.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {Address(self.host, self.port)}: {error.strerror or error}; "
                "another broker may be running there: choose another port"
            ) from error
        listeners = [it for it in multi.listeners if isinstance(it, SocketListener)]
        if self.port == 0:  # "localhost" has two addresses, and each would get another free port
            for other in listeners[1:]:
                await other.aclose()
            del listeners[1:]
        self.port = _address(listeners[0], SocketAttribute.local_address).port
        return listeners

    async def _accept(self, listener: SocketListener) -> None:
        async with anyio.create_task_group() as connections:
            while True:
                try:
                    transport = await listener.accept()
                except OSError as error:  # no file descriptor is free: serve the others, try again
                    _log.warning("cannot accept a connection: %s", error)
                    await anyio.sleep(_ACCEPT_PAUSE)
                else:
                    connections.start_soon(self._serve_connection, transport)

    async def _serve_connection(self, transport: SocketStream) -> None:
        assert self._node is not None
        async with transport:
            try:
                peer = _address(transport, SocketAttribute.remote_address)
                advertised = _address(transport, SocketAttribute.local_address)
                stream = await self._secure(transport)
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError) as error:
                _log.info("a connection ended before its first command: %s", error)
                return
            await Session(self._node, stream, peer.host, advertised, HANDLERS).run()

    async def _secure(self, transport: SocketStream) -> ByteStream:
        if self._tls is None:
            return transport
        with anyio.fail_after(self._limits.handshake_timeout):
            return await TLSStream.wrap(
                transport, server_side=True, ssl_context=self._tls, standard_compatible=False
            )


def _address(provider: TypedAttributeProvider, attribute: Any) -> Address:
    host, port, *_ = provider.extra(attribute)  # noqa: S610
    return Address(host, port)
