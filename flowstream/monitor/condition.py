"""The condition of a pipeline in one word, with the reason: the same for page, terminal and title.

Pure. From the worst to the best, the first that holds:

| condition | when |
| --- | --- |
| halted | an error is ending the run: a message under `Halt()`, or something broken |
| failing | failures are worth waking somebody, see below |
| not ready | a check of /readyz fails while the run is running |
| lagging | the oldest message of a stream has waited for more than `LAGGING_AFTER` seconds |
| starting, draining, closing, stopped | the phase of the run |
| paused | somebody paused it |
| running | none of the others |
| idle | nothing came for `RECENT` seconds, and nothing waits |
| standing by | other processes read all of its partitions |

Failures are worth waking somebody where, within the last `RECENT` seconds,

* `GIVEN_UP` of the messages that a pipeline settled were given up (dead-lettered, or discarded by
  the policy `Drop()`): the share of the alert FlowstreamDeadLettering; or
* `ATTEMPTS` of the attempts of one stage failed, also where they are retried; or
* a part of the pipeline crashed outside of a handler.

Fewer than `FEW` failures only count where nothing else was done: one message in a thousand that
is dead-lettered is what dead letters are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flowstream.monitor.health import READY_PHASES, Check

RECENT = 60
"""Seconds, and samples, that a condition looks back."""

GIVEN_UP = 0.01
ATTEMPTS = 0.1
FEW = 3

LAGGING_AFTER = 30.0
"""Age in seconds of the oldest unsettled message from which on a stream is lagging."""

Level: TypeAlias = Literal["good", "warn", "bad", "quiet"]

ORDER = (
    "halted", "failing", "not ready", "lagging", "starting", "draining", "closing", "stopped",
    "paused", "running", "idle", "standing by",
)  # fmt: skip
"""Every condition, the one to look at first in front."""

_LEVELS: dict[str, Level] = {
    "halted": "bad", "failing": "bad", "not ready": "bad", "lagging": "warn", "running": "good",
    "idle": "quiet", "standing by": "quiet", "stopped": "quiet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Share:
    """`failed` of `total`, of the attempts of a stage or of the messages of a pipeline."""

    name: str
    total: float
    failed: float

    def __str__(self) -> str:
        return f"{self.failed:,.0f} of {self.total:,.0f}"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a condition is judged by. `attempts` are by stage; all counts are of the last
    `RECENT` seconds. `error` is what ends the run, "" where nothing does."""

    phase: str
    paused: bool
    error: str
    attempts: Sequence[Share]
    given_up: Share
    crashed: bool
    checks: Sequence[Check]
    lagging: Sequence[str]
    lag: int | None
    received: float
    in_flight: int
    elsewhere: int
    streams: int


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` is one of ORDER, `why` says it in a sentence; `about` is what to look up for it."""

    name: str
    why: str = ""
    about: str = ""

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.name, "warn")

    @property
    def rank(self) -> int:
        return ORDER.index(self.name)


def alarming(share: Share, least: float) -> bool:
    """Are so many failures worth waking somebody?"""
    if not share.failed:
        return False
    return share.failed >= share.total or (
        share.failed >= FEW and share.failed / share.total >= least
    )


def condition(seen: Observed) -> Condition:
    """The condition of a pipeline."""
    if seen.error:
        return Condition("halted", seen.error, "halted")
    return _failing(seen) or _troubled(seen) or _well(seen)


def _failing(seen: Observed) -> Condition | None:
    if seen.crashed:
        return Condition("failing", "a part of it crashed in the last minute", "crashed")
    if alarming(seen.given_up, GIVEN_UP):
        why = f"{seen.given_up} messages were given up in the last minute"
        return Condition("failing", why, "failing")
    for share in seen.attempts:
        if alarming(share, ATTEMPTS):
            why = f"{share} attempts of {share.name} failed in the last minute"
            return Condition("failing", why, "failing")
    return None


def _troubled(seen: Observed) -> Condition | None:
    if seen.phase not in READY_PHASES:
        return Condition(seen.phase)
    broken = [check for check in seen.checks if not check.ok]
    if broken:
        return Condition("not ready", broken[0].detail, broken[0].name)
    if seen.lagging and not seen.paused:
        streams = ", ".join(seen.lagging[:3]) + (" ..." if len(seen.lagging) > 3 else "")
        why = f"the oldest message of {streams} has waited for more than {LAGGING_AFTER:.0f} s"
        return Condition("lagging", why, "lagging")
    return None


def _well(seen: Observed) -> Condition:
    if seen.paused:
        return Condition("paused", "no message is taken in until it is resumed", "paused")
    if seen.elsewhere and not seen.streams:
        return Condition("standing by", "other processes read all of its partitions")
    if not seen.received and not seen.in_flight and not seen.lag:
        return Condition("idle", "nothing came in the last minute, and nothing waits")
    return Condition("running")
