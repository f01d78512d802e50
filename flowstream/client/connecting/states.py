"""The states of environments, publishers and consumers, and a place to watch them."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import anyio

from flowstream.errors import ConnectionClosed
from flowstream.telemetry import StateChanged, Telemetry
from flowstream.texts import text_of

from .signals import Signal

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
