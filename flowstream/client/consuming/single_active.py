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
from flowstream.client.connecting.recovery import TRANSIENT, reason_of
from flowstream.client.connecting.settings import log
from flowstream.errors import FlowstreamError
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
        self._updates: deque[tuple[ClientConnection | None, int | None, bool]] = deque()
        self._arrived = Signal()
        self._handled = Signal()
        self._handling = False
        self._ended = False
        self._active = False

    def add(
        self, connection: ClientConnection | None, correlation_id: int | None, active: bool
    ) -> None:
        """Queues an update. Without a connection it means that the connection was lost.

        Without a correlation id it comes from the consumer itself, and is not answered.
        """
        self._updates.append((connection, correlation_id, active))
        self._arrived.notify()

    @property
    def busy(self) -> bool:
        """Whether an update is being handled, or waits for that."""
        return self._handling or bool(self._updates)

    async def step_down(self, connection: ClientConnection | None) -> None:
        """Hands over as if the broker had asked for it; returns once all updates are handled."""
        self.add(connection, None, False)
        await self._handled.until(lambda: self._ended or not self.busy)

    async def run(self) -> None:
        """Handles updates until cancelled, or until a callback raises and the consumer fails."""
        try:
            while True:
                await self._arrived.until(lambda: bool(self._updates))
                self._handling = True
                try:
                    await self._handle_next(*self._updates.popleft())
                except Exception as error:  # the application's callbacks may raise anything
                    self._failed(error)
                    return
                self._handling = False
                self._handled.notify()
        finally:
            self._ended = True
            self._handled.notify()

    async def _handle_next(
        self, connection: ClientConnection | None, correlation_id: int | None, active: bool
    ) -> None:
        offset = await self._handle(connection, active)
        if correlation_id is not None and connection is not None:
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
            except FlowstreamError as error:
                if not isinstance(reason_of(error), TRANSIENT):
                    raise
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
