"""What happened in a run, in line_of: the event log of the live page, fed by telemetry. No I/O.

Entries are few and bounded: the same thing that happens again within `REPEATED_WITHIN` seconds is
counted in the entry that is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from flowstream import telemetry
from flowstream.texts import clipped, listed, plural, without_passwords

MAX_ENTRIES = 200
"""Entries kept; the oldest goes."""

REPEATED_WITHIN = 60.0
COMPARED = 8
"""Newest entries that are compared with one that arrives."""

MAX_LENGTH = 500

Level: TypeAlias = Literal["info", "warning", "error"]
Line: TypeAlias = tuple[Level, str] | None


@dataclass(slots=True)
class Entry:
    """One thing that happened; `pipeline` is None for what concerns the whole process."""

    at: float
    level: Level
    pipeline: str | None
    text: str
    count: int = 1


class EventLog:
    """The last entries; the clock is an argument."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._states: dict[tuple[str, str, str], str] = {}

    def observe(self, event: telemetry.Event, now: float) -> None:
        """Fold one event in; most of them are not worth an entry."""
        line_of = _LINES.get(type(event))
        if line_of is not None:
            line = line_of(event)
        elif isinstance(event, telemetry.StateChanged):
            line = self._state(event)
        else:
            return
        if line is not None:
            self.add(now, *line, pipeline=getattr(event, "pipeline", None))

    def add(self, now: float, level: Level, text: str, *, pipeline: str | None = None) -> None:
        """Write an entry, or count it in the one that says the same."""
        text = clipped(without_passwords(text), MAX_LENGTH)
        for _, entry in zip(range(COMPARED), reversed(self._entries), strict=False):
            same = (entry.level, entry.pipeline, entry.text) == (level, pipeline, text)
            if same and now - entry.at < REPEATED_WITHIN:
                self._entries.remove(entry)
                self._entries.append(Entry(now, level, pipeline, text, entry.count + 1))
                return
        self._entries.append(Entry(now, level, pipeline, text))

    def newest(self) -> list[dict[str, Any]]:
        """Every entry as JSON-ready data, the newest first."""
        return [
            {
                "at": entry.at,
                "level": entry.level,
                "pipeline": entry.pipeline,
                "text": entry.text,
                "count": entry.count,
            }
            for entry in reversed(self._entries)
        ]

    def _state(self, event: telemetry.StateChanged) -> Line:
        """Of publishers, consumers and the client: connected. Losses are line for all of them."""
        key = (event.environment, event.kind, event.name)
        before = self._states.get(key)
        if event.state == "closed":
            self._states.pop(key, None)
        else:
            self._states[key] = event.state
        if event.state != "open" or before == "recovering":
            return None
        return "info", f"{named(event.kind, event.name)} is connected"


def named(kind: str, name: str) -> str:
    """An environment, publisher or consumer as it is called in texts."""
    return "the client" if kind == "environment" else f"the {kind} of {name!r}"


def _phase(event: telemetry.PhaseChanged) -> Line:
    return "info", f"the run is {event.phase}"


def _broker_lost(event: telemetry.BrokerLost) -> Line:
    wait = "waits" if len(event.waiting) == 1 else "wait"
    who = f"; the {listed(event.waiting, ', the ')} {wait}" if event.waiting else ""
    return "warning", f"{event.environment!r} lost {event.what}: {event.reason}{who}"


def _broker_back(event: telemetry.BrokerBack) -> Line:
    return "info", f"{event.environment!r} has {event.what} back after {event.seconds:.1f} s"


def _controlled(event: telemetry.Controlled) -> Line:
    done = {"pause": "paused", "resume": "resumed", "stop": "asked to stop", "abort": "aborted"}
    return "info", f"{event.detail or done.get(event.action, event.action)}, by {event.by}"


def _blocked(event: telemetry.LoopBlocked) -> Line:
    where = event.where.strip().splitlines()
    at = f" at {where[-1].strip()}" if where else ""
    who = f"{event.stage!r}" if event.stage else "something"
    return "warning", f"{who} blocked the event loop for {event.seconds:.1f} s{at}"


def _connection_lost(event: telemetry.ConnectionLost) -> Line:
    if event.cause == "request":
        return None
    return "warning", f"a connection to {event.address} ({event.role}) was lost: {event.reason}"


def _moved(event: telemetry.PartitionMoved) -> Line:
    if event.active:
        return "info", f"partition {event.stream!r} is read by this process"
    if event.seconds is None:
        return None
    if event.lost:
        return "info", f"partition {event.stream!r} left this process with its connection"
    return "info", f"partition {event.stream!r} was handed over after {event.seconds:.1f} s"


def _halted(event: telemetry.Halted) -> Line:
    return "error", f"the run is ended by {event.error}: {event.reason}"


def _truncated(event: telemetry.Truncated) -> Line:
    return "error", f"retention removed {_messages(event)} before anybody had handled them"


def _messages(event: telemetry.Abandoned | telemetry.Truncated) -> str:
    return f"{plural(event.messages, 'message')} of {event.stream!r}"


def _offset_moved(event: telemetry.OffsetMoved) -> Line:
    return "warning", (
        f"something else stored offset {event.found} for {event.stream!r} under "
        f"{event.reference!r}, where this run has "
        f"{'none' if event.expected is None else event.expected}"
    )


def _warned(event: telemetry.Warned) -> Line:
    return "warning", event.text


def _crashed(event: telemetry.StageCrashed) -> Line:
    then = "and was restarted" if event.restarted else "and is not restarted"
    return "error", f"stage {event.stage!r} crashed {then}: {event.error}"


def _stuck(event: telemetry.HandlerStuck) -> Line:
    where = event.where.strip().splitlines()
    at = f"; it is at {where[-1].strip()}" if where else ""
    return "warning", f"{event.stage!r} has not come back for {event.seconds:.0f} s{at}"


def _commit_failed(event: telemetry.CommitFailed) -> Line:
    return "warning", f"an offset of {event.stream!r} could not be stored: {event.error}"


def _abandoned(event: telemetry.Abandoned) -> Line:
    return "warning", f"{_messages(event)} left to the next run"


_LINES: dict[type[telemetry.Event], Callable[[Any], Line]] = {
    telemetry.PhaseChanged: _phase,
    telemetry.BrokerLost: _broker_lost,
    telemetry.BrokerBack: _broker_back,
    telemetry.ConnectionLost: _connection_lost,
    telemetry.Controlled: _controlled,
    telemetry.LoopBlocked: _blocked,
    telemetry.PartitionMoved: _moved,
    telemetry.Halted: _halted,
    telemetry.Truncated: _truncated,
    telemetry.OffsetMoved: _offset_moved,
    telemetry.Warned: _warned,
    telemetry.StageCrashed: _crashed,
    telemetry.HandlerStuck: _stuck,
    telemetry.CommitFailed: _commit_failed,
    telemetry.Abandoned: _abandoned,
}
