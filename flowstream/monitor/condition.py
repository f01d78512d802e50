"""The condition of a pipeline in one word, with its reason, for the page and the terminal view.

Pure. The first of these that applies:

| condition | when |
| --- | --- |
| halted | an error is ending the run, such as a message that failed under `Halt()` |
| failing | too many failures, see below |
| not ready | a check of /readyz fails while the run is running, or a worker does not answer |
| slow | a handler call has been running for `slow_after` seconds, and nothing was settled |
| lagging | the oldest unsettled message of a stream is older than `LAGGING_AFTER` seconds |
| starting, draining, closing, stopped | the phase of the run |
| paused | it was paused |
| standing by | other processes read all of its partitions |
| idle | no messages arrived for `RECENT` seconds, and none are waiting |
| running | none of the others |

A pipeline is failing if, within the last `RECENT` seconds,

* `FAILED_MESSAGES` of the messages that it settled failed permanently (dead-lettered, or discarded
  by the policy `Drop()`), which is the threshold of the alert FlowstreamDeadLettering; or
* `FAILED_ATTEMPTS` of the attempts of one stage failed, even if they are retried; or
* a stage crashed outside of a handler; or
* a process of `run --workers` died (workers/snapshots.py).

Fewer than `FEW` failures count only if everything failed: a single dead letter among thousands of
messages needs no attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flowstream.monitor.health import READY_PHASES, Check

RECENT = 60
"""Seconds, and samples, that a condition depends on."""

FAILED_MESSAGES = 0.01
FAILED_ATTEMPTS = 0.1
FEW = 3

LAGGING_AFTER = 30.0
"""Age of the oldest unsettled message, in seconds, above which a stream is lagging."""

Level: TypeAlias = Literal["good", "warn", "bad", "quiet"]

ORDER = (
    "halted", "failing", "not ready", "slow", "lagging", "starting", "draining", "closing",
    "stopped", "paused", "running", "idle", "standing by",
)  # fmt: skip
"""Every condition, the one that needs attention most first."""

_LEVELS: dict[str, Level] = {
    "halted": "bad", "failing": "bad", "not ready": "bad", "lagging": "warn", "running": "good",
    "idle": "quiet", "standing by": "quiet", "stopped": "quiet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Share:
    """How many failed of a total: of the attempts of a stage, or of the messages of a pipeline."""

    name: str
    total: float
    failed: float

    def __str__(self) -> str:
        return f"{self.failed:,.0f} of {self.total:,.0f}"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a condition depends on; all counts are of the last `RECENT` seconds.

    `attempts` has a share for each stage. `error` is what ends the run, and "" if nothing does.
    `slow` says which handler everything waits for, and "" if that is not so; `lagging` are streams,
    `elsewhere` is the number of partitions that other processes read.
    """

    phase: str
    paused: bool
    error: str
    attempts: Sequence[Share]
    given_up: Share
    crashed: bool
    checks: Sequence[Check]
    slow: str
    lagging: Sequence[str]
    lag: int | None
    received: float
    in_flight: int
    elsewhere: int
    streams: int


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` is one of ORDER, `why` is the reason; `topic` is the key of its advice."""

    name: str
    why: str = ""
    topic: str = ""

    @property
    def level(self) -> Level:
        return _LEVELS.get(self.name, "warn")

    @property
    def rank(self) -> int:
        return ORDER.index(self.name)


def alarming(share: Share, least: float) -> bool:
    """Whether so many failures need attention: a share of at least `least`."""
    if not share.failed:
        return False
    return share.failed >= share.total or (
        share.failed >= FEW and share.failed / share.total >= least
    )


def condition(seen: Observed) -> Condition:
    """The condition of a pipeline."""
    if seen.error:
        return Condition("halted", seen.error, "halted")
    return _failing(seen) or _not_working(seen) or _working(seen)


def _failing(seen: Observed) -> Condition | None:
    if seen.crashed:
        return Condition("failing", "a stage crashed in the last minute", "crashed")
    if alarming(seen.given_up, FAILED_MESSAGES):
        why = f"{seen.given_up} messages failed permanently in the last minute"
        return Condition("failing", why, "failing")
    for share in seen.attempts:
        if alarming(share, FAILED_ATTEMPTS):
            why = f"{share} attempts of {share.name} failed in the last minute"
            return Condition("failing", why, "failing")
    return None


def _not_working(seen: Observed) -> Condition | None:
    if seen.phase not in READY_PHASES:
        return Condition(seen.phase, seen.slow, "slow" if seen.slow else "")
    broken = [check for check in seen.checks if not check.ok]
    if broken:
        return Condition("not ready", broken[0].detail, broken[0].name)
    if seen.slow:
        return Condition("slow", seen.slow, "slow")
    if seen.lagging and not seen.paused:
        streams = ", ".join(seen.lagging[:3]) + (" ..." if len(seen.lagging) > 3 else "")
        why = f"the oldest unsettled message of {streams} is more than {LAGGING_AFTER:.0f} s old"
        return Condition("lagging", why, "lagging")
    return None


def _working(seen: Observed) -> Condition:
    if seen.paused:
        return Condition("paused", "it receives no messages until it is resumed", "paused")
    if seen.elsewhere and not seen.streams:
        return Condition("standing by", "other processes read all of its partitions")
    if not seen.received and not seen.in_flight and not seen.lag:
        return Condition("idle", "no messages arrived in the last minute, and none are waiting")
    return Condition("running")
