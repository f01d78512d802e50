"""Keeps one publisher or consumer attached to a broker: attach, wait for the loss, try again.

The publisher or consumer is the object that the application holds; the connection under it comes
and goes. This file has the one loop that decides when to attach, how long to wait, when to give up.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from flowstream.errors import (
    AccessRefused,
    AuthenticationFailed,
    ConnectionFailed,
    FlowstreamError,
    InternalServerError,
    PreconditionFailed,
    RequestTimeout,
    StreamDoesNotExist,
    StreamNotAvailable,
    TokenUnavailable,
    VirtualHostAccessFailed,
)

from .settings import Settings, log
from .states import State, StateCell

PASSING = (
    ConnectionFailed,
    RequestTimeout,
    StreamNotAvailable,
    InternalServerError,
    TokenUnavailable,
)
"""Errors that say nothing about tomorrow: tried again for `recovery_timeout`."""

SETTLING = (
    StreamDoesNotExist,
    AccessRefused,
    AuthenticationFailed,
    VirtualHostAccessFailed,
    PreconditionFailed,
)
"""Errors that a change under way can explain: tried again for `missing_timeout`."""


class Attachment:
    """The loop of one object. `attach` raises when it does not work; `detach` never does."""

    def __init__(
        self,
        state: StateCell,
        settings: Settings,
        *,
        attach: Callable[[], Awaitable[None]],
        detach: Callable[[], Awaitable[None]],
        gave_up: Callable[[FlowstreamError], None],
    ) -> None:
        self.state = state
        self.error: FlowstreamError | None = None
        self.recoveries = 0
        self._settings = settings
        self._attach = attach
        self._detach = detach
        self._gave_up = gave_up
        self._lost = anyio.Event()
        self._reason = ""

    def give_up(self, error: FlowstreamError) -> None:
        """Ends it: `error` says why, and the state is CLOSED."""
        if self.state.value is not State.CLOSED:
            self.error = error
            self.state.set(State.CLOSED, str(error))
            self._gave_up(error)

    def lose(self, reason: str) -> None:
        """The attachment is gone; the loop will make another one. The first reason counts."""
        if not self._lost.is_set():
            self._reason = reason
            self._lost.set()

    async def run(self) -> None:
        """Until cancelled, or until it gives up (then `error` says why and the state is CLOSED)."""
        attempt = 0
        since = anyio.current_time()
        self.state.begin()
        try:
            while True:
                self._lost = anyio.Event()
                try:
                    await self._attach()
                except FlowstreamError as error:
                    await self._detach()
                    attempt += 1
                    elapsed = anyio.current_time() - since
                    if not self._may_retry(error, elapsed):
                        self.give_up(error)
                        return
                    self.state.failed(error)
                    starting = self.state.value is State.CONNECTING
                    log.log(
                        logging.INFO if starting else logging.DEBUG,  # outages.py says the rest
                        "%s of %r: %s", self.state.kind, self.state.name, error,
                        extra={"stream": self.state.name},
                    )  # fmt: skip
                    await self._pause(attempt)
                    continue
                attached_at = anyio.current_time()
                self.state.set(State.OPEN)
                await self._lost.wait()
                since = anyio.current_time()
                lasted = since - attached_at > 10 * self._settings.backoff.initial
                attempt = 0 if lasted else attempt + 1
                self.recoveries += 1
                self.state.set(State.RECOVERING, self._reason)
                await self._detach()
                if attempt:
                    await self._pause(attempt)
        finally:
            with anyio.CancelScope(shield=True):
                await self._detach()

    async def _pause(self, attempt: int) -> None:
        await anyio.sleep(self._settings.backoff.delay(attempt))

    def _may_retry(self, error: FlowstreamError, elapsed: float) -> bool:
        settings = self._settings
        if self.state.value is State.CONNECTING:
            return isinstance(error, StreamNotAvailable) and elapsed < settings.request_timeout
        if isinstance(error, PASSING):
            limit = settings.recovery_timeout
            return limit is None or elapsed < limit
        return isinstance(error, SETTLING) and elapsed < settings.missing_timeout
