"""The connection that does not care which node it has: for locating streams, and for offsets.

It is made when it is first needed and made again after a loss, from the seed addresses and from
the nodes met since, so that it survives the seeds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio

from flowstream.errors import ConnectionClosed, ConnectionFailed
from flowstream.protocol import Address, Command

from .connection import ClientConnection

T = TypeVar("T")


class SeedConnection:
    """One connection to whichever address answers first, in the order given."""

    def __init__(
        self,
        seeds: Sequence[Address],
        known: Callable[[], Mapping[Address, Address]],
        open_connection: Callable[[Address], Awaitable[ClientConnection]],
    ) -> None:
        self._seeds = seeds
        self._known = known
        self._open = open_connection
        self._connection: ClientConnection | None = None
        self._lock = anyio.Lock()

    @property
    def connection(self) -> ClientConnection | None:
        return self._connection

    async def get(self) -> ClientConnection:
        """The connection, opened again if it was lost or does not answer; raises why no seed can
        be reached."""
        async with self._lock:
            if self._connection is not None and self._connection.usable:
                if not self._connection.blocked:
                    return self._connection
                self._connection.abort("it does not answer", "silent")
            last: ConnectionFailed | None = None
            for address in dict.fromkeys((*self._seeds, *self._known().values())):
                try:
                    self._connection = await self._open(address)
                except ConnectionFailed as error:
                    last = error if last is None else ConnectionFailed(f"{last}; {error}")
                else:
                    return self._connection
            assert last is not None
            raise last

    async def request(self, make: Callable[[int], Command], expect: type[T]) -> T:
        """A request that may be sent twice: once more when the connection proves dead."""
        connection = await self.get()
        try:
            return await connection.request(make, expect)
        except ConnectionClosed:
            return await (await self.get()).request(make, expect)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
