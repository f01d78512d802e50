"""What an environment has lost and not got back, told as one outage.

A broker that goes takes every publisher and consumer with it, and each recovers on its own
(recovery.py). The log gets one record for all of them: what was lost, why, who waits and what is
tried; and one when all of it is back. In between a reminder comes once a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import anyio

from flowstream.telemetry import BrokerBack, BrokerLost, Telemetry
from flowstream.texts import clipped, listed

from .recovery import State, StateCell
from .settings import Settings, log
from .tasks import Signal

GATHER = 0.5
"""Seconds in which losses are gathered for one record, and in which an end has to last."""
REMIND = 60.0
"""Seconds between reminders while something is away."""
GROWN = 10.0
"""Seconds from one record to the next while more and more is lost."""
CALM = 60.0
"""Seconds after an outage in which the next one counts as more of the same: its end has to last
twice as long, up to `LONGEST`."""
LONGEST = 30.0


class Outages:
    """Watches the states of an environment, its publishers and its consumers."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        telemetry: Telemetry,
        spawn: Callable[..., Any],
    ) -> None:
        self._name = name
        self._settings = settings
        self._telemetry = telemetry
        self._spawn = spawn
        self._away: dict[StateCell, None] = {}
        self._lost: dict[StateCell, str] = {}
        """Everything that was lost in this outage, with the first reason."""
        self._back = False
        self._attempts = 0
        self._last_error = ""
        self._since = 0.0
        self._ended = 0.0
        self._hold = GATHER
        self._telling = False
        self._closed = False
        self._changed = Signal()

    def changed(self, cell: StateCell, reason: str) -> None:
        """The state of a publisher, a consumer or the environment is another one now."""
        if self._closed:
            return
        if cell.value is State.RECOVERING:
            self._away[cell] = None
            if not self._telling:
                self._begin()
            self._lost.setdefault(cell, reason)
        elif cell in self._away:
            del self._away[cell]
            self._back = self._back or cell.value is State.OPEN
            self._ended = anyio.current_time()
        self._changed.notify()

    def failed(self, error: str) -> None:
        """An attempt to get something back failed."""
        self._attempts += 1
        self._last_error = error

    def close(self) -> None:
        """The environment is closed: what its publishers and consumers lose now is no outage."""
        self._closed = True
        if self._away:
            log.warning(
                "environment %r is closed while it has been without %s for %.1f s", self._name,
                what(self._lost), anyio.current_time() - self._since, extra=self._fields(),
            )  # fmt: skip

    def _begin(self) -> None:
        now = anyio.current_time()
        soon = bool(self._ended) and now - self._ended < CALM
        self._hold = min(2 * self._hold, LONGEST) if soon else GATHER
        self._telling, self._back, self._since = True, False, now
        self._attempts, self._last_error = 0, ""
        self._lost.clear()
        self._spawn(self._tell, name=f"outages of {self._name}")

    async def _tell(self) -> None:
        try:
            with anyio.move_on_after(GATHER):
                while self._away:
                    await self._changed.wait()
            self._say_lost()
            told, said_at = len(self._lost), anyio.current_time()
            while not await self._is_over(self._due(told, said_at)):
                if anyio.current_time() >= self._due(told, said_at):
                    self._say_still()
                    told, said_at = len(self._lost), anyio.current_time()
        finally:
            self._telling = False
        self._say_over()
        self._lost.clear()

    def _due(self, told: int, said_at: float) -> float:
        """When to say again what is away: sooner where more is than was said."""
        return said_at + (REMIND if told == len(self._lost) else GROWN)

    async def _is_over(self, until: float) -> bool:
        """Whether all is back, and stays so for a while; False at `until`, or when more is lost."""
        lost = len(self._lost)
        with anyio.CancelScope(deadline=until):
            while self._away:
                await self._changed.wait()
                if len(self._lost) != lost:
                    return False
        if self._away:
            return False
        with anyio.move_on_after(self._hold):
            while not self._away:
                await self._changed.wait()
        return not self._away

    def _say_lost(self) -> None:
        lost, reason = what(self._lost), reasons(self._lost.values())
        log.warning(
            "environment %r lost %s: %s. %s. Trying again, with at most %g s between attempts, %s",
            self._name, lost, reason, waiting(self._lost), self._settings.backoff.maximum,
            self._limit(), extra=self._fields(),
        )  # fmt: skip
        if self._telemetry.active:
            self._telemetry.emit(BrokerLost(self._name, lost, reason, names(self._lost)))

    def _say_still(self) -> None:
        away = self._away or self._lost  # what comes and goes may be there just now
        log.warning(
            "environment %r has been without %s for %.0f s: %s. %d attempts failed, the last one "
            "because: %s", self._name, what(away), anyio.current_time() - self._since,
            waiting(away), self._attempts, self._last_error or reasons(self._lost.values()),
            extra=self._fields(),
        )  # fmt: skip

    def _say_over(self) -> None:
        """A warning like the record of the loss: who saw that one has to see this one."""
        lost, seconds = what(self._lost), self._ended - self._since
        fields = self._fields() | {"seconds": round(seconds, 3), "attempts": self._attempts}
        if not self._back:
            log.warning(
                "environment %r: whoever waited for %s has ended, after %.1f s without it",
                self._name, lost, seconds, extra=fields,
            )  # fmt: skip
            return
        log.warning(
            "environment %r is connected to %s again after %.1f s (%d attempts failed): %s",
            self._name, lost, seconds, self._attempts, going_on(self._lost), extra=fields,
        )  # fmt: skip
        if self._telemetry.active:
            self._telemetry.emit(BrokerBack(self._name, lost, seconds))

    def _limit(self) -> str:
        timeout = self._settings.recovery_timeout
        return "for as long as it takes" if timeout is None else f"for {timeout:g} s"

    def _fields(self) -> dict[str, Any]:
        streams = [cell.name for cell in self._lost if cell.kind != "environment"]
        return {
            "environment": self._name,
            "reason": reasons(self._lost.values()),
            "streams": listed(sorted({*streams})),
        }


def what(cells: Collection[StateCell]) -> str:
    """What is away: the broker, or what some of its streams are served by."""
    if any(cell.kind == "environment" for cell in cells):
        return "its broker"
    return f"the node that serves {listed(sorted({cell.name for cell in cells}))}"


def names(cells: Iterable[StateCell]) -> tuple[str, ...]:
    """Who waits: `consumer of orders`."""
    return tuple(
        sorted({f"{cell.kind} of {cell.name}" for cell in cells if cell.kind != "environment"})
    )


def waiting(cells: Collection[StateCell]) -> str:
    """`The consumers of orders-0 and orders-1 and the publisher of dead wait`."""
    who = _who(cells)
    if not who:
        return "No publisher and no consumer is in use"
    one = sum(cell.kind != "environment" for cell in cells) == 1
    return f"{who[0].upper()}{who[1:]} {'waits' if one else 'wait'}"


def going_on(cells: Collection[StateCell]) -> str:
    """`the consumer of orders goes on`."""
    who = _who(cells)
    one = sum(cell.kind != "environment" for cell in cells) == 1
    return f"{who} {'goes' if one else 'go'} on" if who else "nobody waited for it"


def _who(cells: Iterable[StateCell]) -> str:
    found = []
    for kind in ("consumer", "publisher"):
        streams = sorted(cell.name for cell in cells if cell.kind == kind)
        if streams:
            found.append(f"the {kind}{'s' if len(streams) > 1 else ''} of {listed(streams)}")
    return " and ".join(found)


def reasons(found: Iterable[str]) -> str:
    """The different reasons, the first ones."""
    return clipped(listed(list(dict.fromkeys(found)), "; "), 500)
