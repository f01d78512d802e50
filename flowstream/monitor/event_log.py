"""The event log of the live page: telemetry events as sentences. No I/O.

The log is bounded. An event that repeats a recent entry, within `REPEATED_WITHIN` seconds, is
counted in that entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from flowstream import telemetry
from flowstream.monitor.health import foreign
from flowstream.texts import clipped, listed, plural

MAX_ENTRIES = 200
"""Entries kept; the oldest is dropped."""

REPEATED_WITHIN = 60.0
COMPARED = 8
"""The newest entries that a new one is compared with."""

MAX_LENGTH = 500

Level: TypeAlias = Literal["info", "warning", "error"]
Line: TypeAlias = tuple[Level, str] | None


@dataclass(slots=True)
class Entry:
    """An event, `count` times; `pipeline` is None if it concerns the whole process."""

    at: float
    level: Level
    pipeline: str | None
    text: str
    count: int = 1


class EventLog:
    """The newest entries. The clock is an argument."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._states: dict[tuple[str, str, str], str] = {}
        self._overtaken: set[tuple[str, str]] = set()

    def observe(self, event: telemetry.Event, now: float) -> None:
        """Add an entry for an event, if it is worth one."""
        line_of = _LINES.get(type(event))
        if line_of is not None:
            line = line_of(event)
        elif isinstance(event, telemetry.StateChanged):
            line = self._state(event)
        elif isinstance(event, telemetry.RetentionLooked):
            line = self._retention(event)
        else:
            return
        if line is not None:
            self.add(now, *line, pipeline=getattr(event, "pipeline", None))

    def add(self, now: float, level: Level, text: str, *, pipeline: str | None = None) -> None:
        """Add an entry, or count it in a recent one with the same text."""
        text = clipped(text, MAX_LENGTH)
        for _, entry in zip(range(COMPARED), reversed(self._entries), strict=False):
            same = (entry.level, entry.pipeline, entry.text) == (level, pipeline, text)
            if same and now - entry.at < REPEATED_WITHIN:
                self._entries.remove(entry)
                self._entries.append(Entry(now, level, pipeline, text, entry.count + 1))
                return
        self._entries.append(Entry(now, level, pipeline, text))

    def newest(self) -> list[dict[str, Any]]:
        """All entries as JSON-ready data, the newest first."""
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
        """A first connect. BrokerLost and BrokerBack cover the losses of all clients at once."""
        key = (event.environment, event.kind, event.name)
        before = self._states.get(key)
        if event.state == "closed":
            self._states.pop(key, None)
        else:
            self._states[key] = event.state
        if event.state != "open" or before == "recovering":
            return None
        return "info", f"{named(event.kind, event.name)} is connected"

    def _retention(self, event: telemetry.RetentionLooked) -> Line:
        """The first look at which messages are gone; a paused reader reports them only later."""
        reader = (event.stream, event.reference)
        if event.headroom >= 0:
            self._overtaken.discard(reader)
            return None
        if reader in self._overtaken:
            return None
        self._overtaken.add(reader)
        gone = plural(-event.headroom, "offset")
        return "warning", (
            f"retention has overtaken the reader of {event.stream!r}: {gone} behind the last "
            f"settled one {'is' if event.headroom == -1 else 'are'} removed, and lost unless "
            "received before"
        )


def named(kind: str, name: str) -> str:
    """The name of an environment, publisher or consumer in a sentence."""
    return "the client" if kind == "environment" else f"the {kind} of {name!r}"


def _phase(event: telemetry.PhaseChanged) -> Line:
    return "info", f"the run is {event.phase}"


def _broker_lost(event: telemetry.BrokerLost) -> Line:
    wait = "waits" if len(event.waiting) == 1 else "wait"
    who = f"; the {listed(event.waiting, ', the ')} {wait}" if event.waiting else ""
    return "warning", f"{event.environment!r} lost {event.what}: {event.reason}{who}"


def _broker_back(event: telemetry.BrokerBack) -> Line:
    again = f"is connected to {event.what} again after {event.seconds:.1f} s"
    return "info", f"{event.environment!r} {again}"


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
        return "info", f"this process reads partition {event.stream!r}"
    if event.seconds is None:
        return None
    if event.lost:
        return "info", f"partition {event.stream!r} left this process: its connection is lost"
    return "info", f"partition {event.stream!r} was handed over after {event.seconds:.1f} s"


def _subscribed_again(event: telemetry.SubscribedAgain) -> Line:
    return "info", f"this process subscribed again to all partitions of {event.super_stream!r}"


def _halted(event: telemetry.Halted) -> Line:
    return "error", f"the run ends with {event.error}: {event.reason}"


def _truncated(event: telemetry.Truncated) -> Line:
    return "error", f"retention removed {_messages(event)} before the pipeline processed them"


def _messages(event: telemetry.Abandoned | telemetry.Truncated) -> str:
    return f"{plural(event.messages, 'message')} of {event.stream!r}"


def _offset_moved(event: telemetry.OffsetMoved) -> Line:
    return "warning", foreign(event)


def _warned(event: telemetry.Warned) -> Line:
    return "warning", event.text


def _crashed(event: telemetry.StageCrashed) -> Line:
    then = "and was restarted" if event.restarted else "and is not restarted"
    return "error", f"stage {event.stage!r} crashed {then}: {event.error}"


def _stuck(event: telemetry.HandlerStuck) -> Line:
    where = event.where.strip().splitlines()[:2]  # the line of the handler, and not of a library
    at = f"; it is at {where[-1].strip()}" if where else ""
    return "warning", f"{event.stage!r} has not returned for {event.seconds:.0f} s{at}"


def _commit_failed(event: telemetry.CommitFailed) -> Line:
    return "warning", f"an offset of {event.stream!r} could not be stored: {event.error}"


def _abandoned(event: telemetry.Abandoned) -> Line:
    were, them = ("was", "it") if event.messages == 1 else ("were", "them")
    return "warning", f"{_messages(event)} {were} abandoned; the next run processes {them} again"


_LINES: dict[type[telemetry.Event], Callable[[Any], Line]] = {
    telemetry.PhaseChanged: _phase,
    telemetry.BrokerLost: _broker_lost,
    telemetry.BrokerBack: _broker_back,
    telemetry.ConnectionLost: _connection_lost,
    telemetry.Controlled: _controlled,
    telemetry.LoopBlocked: _blocked,
    telemetry.PartitionMoved: _moved,
    telemetry.SubscribedAgain: _subscribed_again,
    telemetry.Halted: _halted,
    telemetry.Truncated: _truncated,
    telemetry.OffsetMoved: _offset_moved,
    telemetry.Warned: _warned,
    telemetry.StageCrashed: _crashed,
    telemetry.HandlerStuck: _stuck,
    telemetry.CommitFailed: _commit_failed,
    telemetry.Abandoned: _abandoned,
}
