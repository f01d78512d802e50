"""Single active consumers: the broker promotes and demotes them, one after the other.

The broker waits for each answer (for 60 s, then it closes the connection). It promotes the next
consumer of the group only after the demoted one has answered. So a demotion is answered after the
application has processed its last delivery and the offset is stored.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from flowstream.backoff import Backoff
from flowstream.client.connecting.connection import ClientConnection
from flowstream.client.connecting.recovery import TRANSIENT
from flowstream.client.connecting.settings import log
from flowstream.protocol import OffsetSpec
from flowstream.signals import Signal


class ActivationQueue:
    """Handles the promotions and demotions of one consumer in their order.

    `promoted` is called again while it raises a transient error (a lost connection, no leader) and
    the broker waits. The argument of `demoted` says whether the broker waits for the answer; after
    a lost connection it does not.
    """

    def __init__(
        self,
        stream: str,
        backoff: Backoff,
        *,
        promoted: Callable[[], Awaitable[OffsetSpec]],
        demoted: Callable[[bool], Awaitable[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        self._stream = stream
        self._backoff = backoff
        self._promoted = promoted
        self._demoted = demoted
        self._failed = failed
        self._updates: deque[tuple[ClientConnection | None, int, bool]] = deque()
        self._arrived = Signal()
        self._active = False

    def add(self, connection: ClientConnection | None, correlation_id: int, active: bool) -> None:
        """Queues an update. Without a connection it means that the connection was lost."""
        self._updates.append((connection, correlation_id, active))
        self._arrived.notify()

    async def run(self) -> None:
        """Handles updates until cancelled, or until a callback raises and the consumer fails."""
        while True:
            while not self._updates:
                await self._arrived.wait()
            connection, correlation_id, active = self._updates.popleft()
            try:
                offset = await self._handle(connection, active)
            except Exception as error:  # the application's callbacks may raise anything
                self._failed(error)
                return
            if connection is not None and connection.usable:
                connection.answer_update(correlation_id, offset)

    async def _handle(self, connection: ClientConnection | None, active: bool) -> OffsetSpec:
        log.debug("consumer of %r: active=%s", self._stream, active, extra={"stream": self._stream})
        if self._active:
            await self._demoted(connection is not None and connection.usable)
            self._active = False
        if not active or connection is None:
            return OffsetSpec.none()
        return await self._promote(connection)

    async def _promote(self, connection: ClientConnection) -> OffsetSpec:
        attempt = 0
        while connection.error is None:
            try:
                offset = await self._promoted()
            except TRANSIENT as error:
                log.log(
                    logging.DEBUG if attempt else logging.INFO,
                    "consumer of %r: becoming active failed, retrying: %s", self._stream, error,
                    extra={"stream": self._stream},
                )  # fmt: skip
                attempt += 1
                await anyio.sleep(self._backoff.delay(attempt, random.random()))
                continue
            if connection.usable:
                self._active = True
                return offset
            await self._demoted(False)
        return OffsetSpec.none()
