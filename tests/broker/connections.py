"""Clients of a broker in memory, connected without sockets: for tests in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream

from flowstream.broker.handlers import HANDLERS
from flowstream.broker.node import Limits, Node
from flowstream.broker.records import Contents
from flowstream.broker.session import Handler, Session
from flowstream.broker.store import MemoryStore, Store
from flowstream.protocol import Address
from tests.broker.pipes import pipes
from tests.broker.raw import Raw

Handlers = Mapping[type[Any], Handler]


@asynccontextmanager
async def a_node(limits: Limits | None = None, store: Store | None = None) -> AsyncIterator[Node]:
    """A broker without sockets; it keeps everything in memory unless it is given a store."""
    node = Node(store or MemoryStore(), Contents([], {}, 1), {"guest": "guest"}, limits or Limits())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.run)
        yield node
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def a_client(
    node: Node, *, unread: float = 1000, heartbeat: int = 0, handlers: Handlers = HANDLERS
) -> AsyncIterator[Raw]:
    """A client of the node that is logged in."""
    async with a_stranger(node, unread=unread, handlers=handlers) as raw:
        await raw.log_in(heartbeat=heartbeat)
        yield raw


@asynccontextmanager
async def a_stranger(
    node: Node, *, unread: float = 1000, handlers: Handlers = HANDLERS
) -> AsyncIterator[Raw]:
    """A client before its first command; the session waits while `unread` pieces are not read."""
    near, far = pipes(unread)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Serving(node, far, handlers).run)
        async with near:
            yield Raw(near)


class Serving:
    """A session that closes its end when it is over, as the server does."""

    def __init__(self, node: Node, far: ByteStream, handlers: Handlers) -> None:
        self.session = Session(node, far, None, Address("here", 1), handlers)
        self.far = far

    async def run(self) -> None:
        async with self.far:
            await self.session.run()


async def silent(raw: Raw) -> bool:
    """Whether the broker has nothing to send now."""
    with anyio.move_on_after(0.02) as waiting:
        await raw.next()
    return waiting.cancelled_caught
