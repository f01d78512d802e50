"""A small TCP proxy in front of a broker that does to connections what networks do.

Each connection is a `Link`, and knows its role from the name that the client gives in its first
frame (NAME-ROLE-NUMBER). Faults are switched on a link, or on the proxy for all of them.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

PIECE = 1 << 16
HANDSHAKE = 6
"""RabbitMQ hangs up on a handshake whose requests do not come whole: so many are not split."""


class Faults:
    """`delay` in seconds for every piece, `rate` in bytes a second, `piece` in bytes."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.rate = 0.0
        self.piece = PIECE
        self._open = anyio.Event()
        self._open.set()

    def stall(self) -> None:
        """Nothing goes through any more, and nobody is told: a half-open connection."""
        self._open = anyio.Event()

    def resume(self) -> None:
        self._open.set()

    async def passes(self) -> None:
        await self._open.wait()


class Link:
    """One connection of a client, and the one to the broker that was made for it."""

    def __init__(self, proxy: Proxy, client: SocketStream, broker: SocketStream) -> None:
        self.faults = Faults()
        self.role = ""
        self.bytes = 0
        self.closed = False
        self._proxy = proxy
        self._ends = (client, broker)
        self._scope = anyio.CancelScope()

    def reset(self) -> None:
        """Both ends get a TCP reset."""
        for end in self._ends:
            raw = end.extra(SocketAttribute.raw_socket)
            if raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._scope.cancel()

    async def run(self) -> None:
        client, broker = self._ends
        try:
            with self._scope:
                async with client, broker, anyio.create_task_group() as group:
                    group.start_soon(self._copy, client, broker, group)
                    group.start_soon(self._copy, broker, client, group)
        finally:
            self.closed = True
            self._proxy.links.remove(self)

    async def _copy(self, source: SocketStream, target: SocketStream, group: TaskGroup) -> None:
        whole = HANDSHAKE if source is self._ends[0] else 0
        try:
            while True:
                data = await source.receive(PIECE)
                if not self.role and source is self._ends[0]:
                    self._name(data)
                whole = max(0, whole - 1)
                for piece in [data] if whole else self._pieces(data):
                    for faults in (self._proxy.faults, self.faults):
                        await faults.passes()
                        pause = faults.delay + (len(piece) / faults.rate if faults.rate else 0.0)
                        if pause:
                            await anyio.sleep(pause)
                    await target.send(piece)
                    self.bytes += len(piece)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            group.cancel_scope.cancel()

    def _name(self, data: bytes) -> None:
        found = re.search(rb"-(locating|tracking|publishing|consuming)-\d+", data)
        if found:
            self.role = found[1].decode()

    def _pieces(self, data: bytes) -> list[bytes]:
        size = min(self._proxy.faults.piece, self.faults.piece)
        if size >= len(data):
            return [data]
        return [data[start : start + size] for start in range(0, len(data), size)]


class Proxy:
    """`port` is where to connect; `links` are the connections that are open now."""

    def __init__(self, host: str, port: int) -> None:
        self.faults = Faults()
        self.links: list[Link] = []
        self.port = 0
        self.refusing = False
        self.accepted = 0
        self._upstream = (host, port)

    def of(self, role: str) -> list[Link]:
        return [link for link in self.links if link.role == role]

    def reset_all(self) -> None:
        for link in tuple(self.links):
            link.reset()

    async def _serve(self, client: SocketStream) -> None:
        self.accepted += 1
        if self.refusing:
            await client.aclose()
            return
        try:
            broker = await anyio.connect_tcp(*self._upstream)
        except OSError:
            await client.aclose()
            return
        link = Link(self, client, broker)
        self.links.append(link)
        await link.run()


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a broker."""
    proxy = Proxy(host, port)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    proxy.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, proxy._serve)
        yield proxy
        group.cancel_scope.cancel()
