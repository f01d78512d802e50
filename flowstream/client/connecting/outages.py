"""Logs the losses of an environment as one outage, instead of once per publisher and consumer.

When a broker fails, every publisher and consumer loses it, and each recovers on its own
(recovery.py). The log gets one record about all of them: what was lost and why, what waits for it,
and how it is retried. A second record says that all of it is back. In between a reminder is logged
once a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import anyio

from flowstream.signals import Signal
from flowstream.telemetry import BrokerBack, BrokerLost, Telemetry
from flowstream.texts import clipped, listed

from .recovery import State, StateCell
from .settings import Settings, log

GATHER = 0.5
"""Seconds during which losses are collected for one record, and for which a recovery must last."""
REMIND = 60.0
"""Seconds between reminders while something is lost."""
GROWN = 10.0
"""Seconds until the next record if more was lost since the last one."""
CALM = 60.0
"""An outage that begins within so many seconds after the last one continues it: its recovery must
last twice as long, up to `LONGEST`, before it is logged."""
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
        """Everything that was lost during this outage, with the first reason."""
        self._back = False
        self._attempts = 0
        self._last_error = ""
        self._since = 0.0
        self._ended = 0.0
        self._hold = GATHER
        self._reporting = False
        self._closed = False
        self._changed = Signal()

    def changed(self, cell: StateCell, reason: str) -> None:
        """The state of a publisher, a consumer or the environment has changed."""
        if self._closed:
            return
        if cell.value is State.RECOVERING:
            self._away[cell] = None
            if not self._reporting:
                self._begin()
            self._lost.setdefault(cell, reason)
        elif cell in self._away:
            del self._away[cell]
            self._back = self._back or cell.value is State.OPEN
            self._ended = anyio.current_time()
        self._changed.notify()

    def failed(self, error: str) -> None:
        """An attempt to recover failed."""
        self._attempts += 1
        self._last_error = error

    def close(self) -> None:
        """Ends the outage: what publishers and consumers lose from now on is expected."""
        self._closed = True
        if self._away:
            log.warning(
                "environment %r is closed. It had been without %s for %.1f s", self._name,
                what(self._lost), anyio.current_time() - self._since, extra=self._fields(),
            )  # fmt: skip

    def _begin(self) -> None:
        now = anyio.current_time()
        soon = bool(self._ended) and now - self._ended < CALM
        self._hold = min(2 * self._hold, LONGEST) if soon else GATHER
        self._reporting, self._back, self._since = True, False, now
        self._attempts, self._last_error = 0, ""
        self._lost.clear()
        self._spawn(self._report, name=f"outages of {self._name}")

    async def _report(self) -> None:
        try:
            with anyio.move_on_after(GATHER):
                while self._away:
                    await self._changed.wait()
            self._log_lost()
            reported, logged_at = len(self._lost), anyio.current_time()
            while not await self._is_over(self._due(reported, logged_at)):
                if anyio.current_time() >= self._due(reported, logged_at):
                    self._log_still()
                    reported, logged_at = len(self._lost), anyio.current_time()
        finally:
            self._reporting = False
        self._log_over()
        self._lost.clear()

    def _due(self, reported: int, logged_at: float) -> float:
        """When the next record is due: earlier if more was lost since the last one."""
        return logged_at + (REMIND if reported == len(self._lost) else GROWN)

    async def _is_over(self, until: float) -> bool:
        """Whether everything is back and stays back; False at `until`, or when more is lost."""
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

    def _log_lost(self) -> None:
        lost, reason = what(self._lost), reasons(self._lost.values())
        log.warning(
            "environment %r lost %s: %s. %s. Trying again, with at most %g s between attempts, %s",
            self._name, lost, reason, waiting(self._lost), self._settings.backoff.maximum,
            self._limit(), extra=self._fields(),
        )  # fmt: skip
        if self._telemetry.active:
            self._telemetry.emit(BrokerLost(self._name, lost, reason, names(self._lost)))

    def _log_still(self) -> None:
        away = self._away or self._lost  # what flaps may be back at this moment
        log.warning(
            "environment %r has been without %s for %.0f s: %s. %d attempts failed, the last one "
            "because: %s", self._name, what(away), anyio.current_time() - self._since,
            waiting(away), self._attempts, self._last_error or reasons(self._lost.values()),
            extra=self._fields(),
        )  # fmt: skip

    def _log_over(self) -> None:
        """Logs the end, as a warning: a reader of warnings saw the loss and must see its end."""
        lost, seconds = what(self._lost), self._ended - self._since
        fields = self._fields() | {"seconds": round(seconds, 3), "attempts": self._attempts}
        if not self._back:
            log.warning(
                "environment %r: everything that waited for %s was closed after %.1f s without it",
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
        timeout, missing = self._settings.recovery_timeout, self._settings.missing_timeout
        long = "for as long as it takes" if timeout is None else f"for {timeout:g} s"
        return f"{long}, but {missing:g} s if a stream is missing or access is refused"

    def _fields(self) -> dict[str, Any]:
        streams = [cell.name for cell in self._lost if cell.kind != "environment"]
        return {
            "environment": self._name,
            "reason": reasons(self._lost.values()),
            "streams": listed(sorted({*streams})),
        }


def what(cells: Collection[StateCell]) -> str:
    """What is lost: the broker, or the node that serves some of its streams."""
    if any(cell.kind == "environment" for cell in cells):
        return "its broker"
    return f"the node that serves {listed(sorted({cell.name for cell in cells}))}"


def names(cells: Iterable[StateCell]) -> tuple[str, ...]:
    """What waits for it, as `consumer of orders`."""
    return tuple(
        sorted({f"{cell.kind} of {cell.name}" for cell in cells if cell.kind != "environment"})
    )


def waiting(cells: Collection[StateCell]) -> str:
    """`The consumers of orders-0 and orders-1 and the publisher of dead wait`."""
    who = _who(cells)
    if not who:
        return "No publisher or consumer is affected"
    one = sum(cell.kind != "environment" for cell in cells) == 1
    return f"{who[0].upper()}{who[1:]} {'waits' if one else 'wait'}"


def going_on(cells: Collection[StateCell]) -> str:
    """`the consumer of orders continues`."""
    who = _who(cells)
    one = sum(cell.kind != "environment" for cell in cells) == 1
    return (
        f"{who} {'continues' if one else 'continue'}"
        if who
        else "no publisher or consumer was waiting"
    )


def _who(cells: Iterable[StateCell]) -> str:
    found = []
    for kind in ("consumer", "publisher"):
        streams = sorted(cell.name for cell in cells if cell.kind == kind)
        if streams:
            found.append(f"the {kind}{'s' if len(streams) > 1 else ''} of {listed(streams)}")
    return " and ".join(found)


def reasons(found: Iterable[str]) -> str:
    """The first of the different reasons."""
    return clipped(listed(list(dict.fromkeys(found)), "; "), 500)
