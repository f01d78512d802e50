"""Keeps one publisher or consumer attached to a broker: attach, wait for the loss, try again.

The publisher or consumer is the object that the application holds; the connection under it comes
and goes. This file has the one loop that decides when to attach, how long to wait, when to give up.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING

import anyio

from flowstream.errors import (
    AccessRefused,
    AuthenticationFailed,
    ConnectionClosed,
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
from flowstream.telemetry import StateChanged, Telemetry
from flowstream.texts import text_of

from .settings import Settings, log
from .tasks import Signal

if TYPE_CHECKING:
    from .outages import Outages


class State(Enum):
    """CONNECTING until first usable; OPEN; RECOVERING after a loss; CLOSED is final."""

    CONNECTING = "connecting"
    OPEN = "open"
    RECOVERING = "recovering"
    CLOSED = "closed"


class StateCell:
    """One object's state: set it synchronously, await it anywhere.

    `outages` are those of its environment, whose name is `environment`.
    """

    __slots__ = ("_changed", "_outages", "_since", "_telemetry", "environment", "kind", "name",
                 "value")  # fmt: skip

    def __init__(
        self,
        kind: str,
        name: str,
        telemetry: Telemetry,
        *,
        environment: str = "",
        outages: Outages | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.environment = environment
        self.value = State.CONNECTING
        self._outages = outages
        self._telemetry = telemetry
        self._changed = Signal()
        self._since: float | None = None

    def begin(self) -> None:
        """Tells that it is CONNECTING now."""
        self._since = anyio.current_time()
        self._emit("", 0.0)

    def set(self, state: State, reason: str = "") -> None:
        """Changes the state; a closed one stays closed."""
        if self.value in (state, State.CLOSED):
            return
        now = anyio.current_time()
        elapsed = 0.0 if self._since is None else now - self._since
        self._since, self.value = now, state
        self._changed.notify()
        if self._outages is not None:
            self._outages.changed(self, reason)
        self._emit(reason, elapsed)

    def failed(self, error: object) -> None:
        """An attempt to get out of this state failed."""
        if self._outages is not None and self.value is State.RECOVERING:
            self._outages.failed(text_of(error))

    async def wait(self, *states: State) -> State:
        """Returns once the state is one of these; raises ConnectionClosed when none can come."""
        while self.value not in states:
            if self.value is State.CLOSED:
                raise ConnectionClosed(f'the {self.kind} "{self.name}" is closed', cause="request")
            await self._changed.wait()
        return self.value

    def _emit(self, reason: str, elapsed: float) -> None:
        if self._telemetry.active:
            self._telemetry.emit(
                StateChanged(
                    self.kind, self.name, self.value.value, reason, elapsed, self.environment
                )
            )


TRANSIENT = (
    ConnectionFailed,
    RequestTimeout,
    StreamNotAvailable,
    InternalServerError,
    TokenUnavailable,
)
"""Errors that say nothing about tomorrow: tried again for `recovery_timeout`."""

RETRY_WHILE_MISSING = (
    StreamDoesNotExist,
    AccessRefused,
    AuthenticationFailed,
    VirtualHostAccessFailed,
    PreconditionFailed,
)
"""Errors that a change under way can explain: tried again for `missing_timeout`."""


class Recovery:
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
        if isinstance(error, TRANSIENT):
            limit = settings.recovery_timeout
            return limit is None or elapsed < limit
        return isinstance(error, RETRY_WHILE_MISSING) and elapsed < settings.missing_timeout
