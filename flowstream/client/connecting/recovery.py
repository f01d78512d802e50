"""Keeps a publisher or consumer attached to a broker: attach, wait for the loss, attach again.

The application holds a publisher or consumer, and the connection under it changes. The loop in
`Recovery.run` is the only place that decides when to attach, and `may_retry` how long to try. An
address that never answered is wrong, and ends the first attempt. A broker that had answered may
come back, also while a publisher or consumer is attached for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from itertools import count
from typing import Final, Protocol, TypeVar

import anyio

from flowstream.errors import (
    AccessRefused,
    AuthenticationFailed,
    CommitNotVerified,
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
from flowstream.signals import Signal
from flowstream.telemetry import RecoveryFailed, StateChanged, Telemetry
from flowstream.texts import text_of

from .settings import Settings, log


class State(Enum):
    """CONNECTING until first usable; OPEN; RECOVERING after a loss; CLOSED is final."""

    CONNECTING = "connecting"
    OPEN = "open"
    RECOVERING = "recovering"
    CLOSED = "closed"


class StateWatcher(Protocol):
    """What is called when the state of an environment, publisher or consumer changes."""

    def changed(self, cell: StateCell, reason: str) -> None: ...

    def failed(self, error: str) -> None:
        """An attempt to recover failed."""


_numbers = count(1)


class StateCell:
    """The state of an environment, publisher or consumer: set synchronously, awaited anywhere.

    `obstacle` is what keeps it from being open: why it was lost, or why the last attempt failed.
    """

    __slots__ = ("_changed", "_since", "_telemetry", "_watcher", "environment", "kind", "name",
                 "number", "obstacle", "value")  # fmt: skip

    def __init__(
        self,
        kind: str,
        name: str,
        telemetry: Telemetry,
        *,
        environment: str = "",
        watcher: StateWatcher | None = None,
    ) -> None:
        self.kind: str = kind
        self.name: str = name
        self.environment: str = environment
        self.number: Final = next(_numbers)
        self.value: State = State.CONNECTING
        self.obstacle: str = ""
        self._watcher = watcher
        self._telemetry = telemetry
        self._changed = Signal()
        self._since: float | None = None

    def begin(self) -> None:
        """Emits the first event: the state is CONNECTING."""
        self._since = anyio.current_time()
        self._emit("", 0.0)

    def set(self, state: State, reason: str = "") -> None:
        """Changes the state. CLOSED is final: later changes are ignored."""
        if self.value in (state, State.CLOSED):
            return
        now = anyio.current_time()
        elapsed = 0.0 if self._since is None else now - self._since
        self._since, self.value, self.obstacle = now, state, reason
        self._changed.notify()
        if self._watcher is not None:
            self._watcher.changed(self, reason)
        self._emit(reason, elapsed)

    def failed(self, error: object) -> None:
        """Reports that an attempt to connect failed."""
        self.obstacle = text_of(error)
        if self._watcher is not None and self.value is State.RECOVERING:
            self._watcher.failed(self.obstacle)
        if self._telemetry.active:
            self._telemetry.emit(
                RecoveryFailed(self.kind, self.name, self.obstacle, self.environment)
            )

    async def wait(self, *states: State) -> State:
        """Returns once the state is one of these; raises ConnectionClosed if it becomes CLOSED."""
        while self.value not in states:
            if self.value is State.CLOSED:
                raise ConnectionClosed(f'the {self.kind} "{self.name}" is closed', cause="request")
            await self._changed.wait()
        return self.value

    def _emit(self, reason: str, elapsed: float) -> None:
        if self._telemetry.active:
            self._telemetry.emit(
                StateChanged(
                    self.kind,
                    self.name,
                    self.value.value,
                    reason,
                    elapsed,
                    self.environment,
                    self.number,
                )
            )


TRANSIENT = (
    ConnectionFailed,
    RequestTimeout,
    StreamNotAvailable,
    InternalServerError,
    TokenUnavailable,
)
"""Errors that usually go away by themselves. The operation is retried for `recovery_timeout`."""

RETRY_WHILE_MISSING = (
    StreamDoesNotExist,
    AccessRefused,
    AuthenticationFailed,
    VirtualHostAccessFailed,
    PreconditionFailed,
)
"""Errors that a change in progress can cause, such as deleting a stream and creating it again, or
replacing its permissions. The operation is retried for `missing_timeout`."""


T = TypeVar("T")


def reason_of(error: FlowstreamError) -> BaseException | None:
    """The error itself; of an offset that could not be stored, why."""
    return error.__cause__ if isinstance(error, CommitNotVerified) else error


def is_loss(error: BaseException | None) -> bool:
    """Whether a broker that had answered does so no longer."""
    return isinstance(error, RequestTimeout) or (isinstance(error, ConnectionFailed) and error.lost)


def may_retry(
    error: BaseException | None, elapsed: float, settings: Settings, *, lost: bool
) -> bool:
    """Whether what failed is tried again, `elapsed` seconds after it was first tried or was lost.

    `lost`: a connection was lost meanwhile. Otherwise only a leader is waited for.
    """
    if not lost:
        return isinstance(error, StreamNotAvailable) and elapsed < settings.request_timeout
    if isinstance(error, TRANSIENT):
        limit = settings.recovery_timeout
        return limit is None or elapsed < limit
    return isinstance(error, RETRY_WHILE_MISSING) and elapsed < settings.missing_timeout


async def through_losses(request: Callable[[], Awaitable[T]]) -> T:
    """What `request` returns. It is repeated while a broker that had answered is away.

    This is the public form of `repeated`: the settings of an environment are no public type.
    """
    return await repeated(request, Settings())


async def repeated(request: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """As `through_losses`, for as long as the options of the environment say."""
    since, lost = anyio.current_time(), False
    for attempt in count(1):
        try:
            return await request()
        except FlowstreamError as error:
            reason = reason_of(error)
            lost = lost or is_loss(reason)
            if not may_retry(reason, anyio.current_time() - since, settings, lost=lost):
                raise
            level = logging.INFO if attempt == 1 else logging.DEBUG
            log.log(level, "the broker is asked again, as it did not answer: %s", error)
        await anyio.sleep(settings.pause(attempt))
    raise AssertionError


class Recovery:
    """The recovery loop of one publisher or consumer. `attach` may raise, `detach` never does."""

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
        self.recoveries: int = 0
        self._settings = settings
        self._attach = attach
        self._detach = detach
        self._gave_up = gave_up
        self._lost = anyio.Event()
        self._renewed: anyio.Event | None = None
        self._away = 0.0
        self._running = False
        self._reason = ""

    def give_up(self, error: FlowstreamError) -> None:
        """Stops recovering: the state becomes CLOSED, and `error` says why."""
        if self.state.value is not State.CLOSED:
            self.error = error
            self.state.set(State.CLOSED, str(error))
            self._gave_up(error)

    def lose(self, reason: str) -> None:
        """Reports a loss to the loop, which attaches again. Only the first reason is kept."""
        if not self._lost.is_set():
            self._reason = reason
            self._lost.set()

    async def renew(self, away: float = 0.0) -> None:
        """Detaches and attaches again although nothing is lost; returns after the first attempt.

        In between it waits for `away` seconds.
        The state remains OPEN unless that attempt fails, which is then a loss.
        """
        if self._running and self.state.value is State.OPEN and not self._lost.is_set():
            renewed, self._away = anyio.Event(), away
            self._renewed = renewed
            self._lost.set()
            await renewed.wait()

    async def run(self) -> None:
        """Attaches again after every loss, until it is cancelled or gives up (see `give_up`)."""
        attempt = 0
        since = anyio.current_time()
        self.state.begin()
        self._running = True
        try:
            while True:
                self._lost = anyio.Event()
                try:
                    await self._attach()
                except FlowstreamError as error:
                    await self._detach()
                    attempt += 1
                    elapsed = anyio.current_time() - since
                    if self.state.value is State.CONNECTING and is_loss(error):
                        self.recoveries += 1
                    if self._end_renewal() or is_loss(error):
                        self.state.set(State.RECOVERING, str(error))
                    lost = self.state.value is not State.CONNECTING
                    if not may_retry(error, elapsed, self._settings, lost=lost):
                        self.give_up(error)
                        return
                    self.state.failed(error)
                    starting = self.state.value is State.CONNECTING
                    log.log(
                        logging.INFO if starting else logging.DEBUG,  # later losses: see outages.py
                        "%s of %r: %s", self.state.kind, self.state.name, error,
                        extra={"stream": self.state.name},
                    )  # fmt: skip
                    await self._pause(attempt)
                    continue
                attached_at = anyio.current_time()
                self.state.set(State.OPEN)
                self._end_renewal()
                await self._lost.wait()
                since = anyio.current_time()
                if self._renewed is not None:
                    await self._detach()
                    await anyio.sleep(self._away)
                    continue
                lasted = since - attached_at > 10 * self._settings.backoff.initial
                attempt = 0 if lasted else attempt + 1
                self.recoveries += 1
                self.state.set(State.RECOVERING, self._reason)
                await self._detach()
                if attempt:
                    await self._pause(attempt)
        finally:
            self._running = False
            self._end_renewal()
            with anyio.CancelScope(shield=True):
                await self._detach()

    def _end_renewal(self) -> bool:
        """Wake `renew`; whether it waits."""
        renewed, self._renewed = self._renewed, None
        if renewed is not None:
            renewed.set()
        return renewed is not None

    async def _pause(self, attempt: int) -> None:
        await anyio.sleep(self._settings.pause(attempt))
