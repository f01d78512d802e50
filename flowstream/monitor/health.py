"""Readiness from progress, not from a ping: pure checks over what is known of each pipeline.

A pipeline is ready when it runs (or was paused on purpose), is connected, and what it receives is
settled and committed. A check that fails says what it saw. This is when each one turns false:

| check | false |
| --- | --- |
| phase | at once while the run is not running: starting, draining, closing, stopped |
| broker | while connecting for the first time; `RECOVERY_GRACE` seconds after a broker was lost |
| handlers | when a handler has not got on for `stuck_after` seconds (of the pipeline) |
| progress | when messages were in flight and none settled for `stuck_after` + the longest batch |
| | timeout seconds |
| commits | when settled messages have waited for `COMMITS_MISSED` commit intervals |
| retention | for `TRUNCATION_SHOWN` seconds after messages were lost to retention |

Each is true again as soon as its reason is gone. That something else stores offsets of the run is
said by commits, and fails nothing: while a release replaces another both run, and the old one is
only stopped once the new one is ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flowstream.pipeline import Statistics
from flowstream.telemetry import OffsetMoved
from flowstream.texts import listed, plural

RECOVERY_GRACE = 2.0
"""Seconds that a broker may be disconnected: the move of a leader is no reason to be taken out."""

REASONS = 3
"""Streams of a kind, and reasons, that a text names."""

COMMITS_MISSED = 3
"""Commit intervals after which settled messages should have been committed."""

TRUNCATION_SHOWN = 60.0
"""Seconds for which a loss to retention is shown as not ready."""

FOREIGN_COMMIT_SHOWN = 60.0
"""Seconds for which it is shown that something else stored an offset."""

READY_PHASES = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class Check:
    """One question about a pipeline and its answer."""

    pipeline: str
    name: str
    ok: bool
    detail: str

    @property
    def labels(self) -> tuple[str, str]:
        return self.pipeline, self.name


@dataclass(frozen=True, slots=True)
class Disconnected:
    """An environment, publisher or consumer (`kind`) that is connecting or recovering.

    `environment` is the name of the environment that it belongs to.
    """

    kind: str
    name: str
    state: str
    seconds: float
    reason: str
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Truncation:
    """`messages` were lost to retention, the last of them `seconds` ago."""

    messages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ForeignCommit:
    """Something else stored an offset, as `event` says, `seconds` ago."""

    event: OffsetMoved
    seconds: float


@dataclass(frozen=True, slots=True)
class PipelineHealth:
    """What is known of one pipeline; `statistics` is None until it runs."""

    pipeline: str
    statistics: Statistics | None
    disconnected: Sequence[Disconnected] = ()
    truncation: Truncation | None = None
    foreign_commit: ForeignCommit | None = None


def readiness(pipelines: Sequence[PipelineHealth]) -> list[Check]:
    """Every check of every pipeline; ready when all are ok and there is at least one pipeline."""
    if not pipelines:
        return [Check("", "phase", False, "no pipeline has started yet")]
    return [check for each in pipelines for check in _checks(each)]


def _checks(known: PipelineHealth) -> Iterator[Check]:
    name, statistics = known.pipeline, known.statistics
    if statistics is None:
        yield Check(name, "phase", False, "the run is starting")
    else:
        ok = statistics.phase in READY_PHASES
        shown = "paused" if statistics.paused else statistics.phase
        yield Check(name, "phase", ok, f"the run is {shown}")
    yield _broker(name, known.disconnected)
    if statistics is not None:
        yield _handlers(statistics)
        yield _progress(statistics)
        yield _commits(statistics, known.foreign_commit)
    yield _retention(name, known.truncation)


def _broker(pipeline: str, disconnected: Sequence[Disconnected]) -> Check:
    for each in disconnected:
        if each.state == "connecting":
            return Check(pipeline, "broker", False, f"{_who([each])} is connecting")
    if not disconnected:
        return Check(pipeline, "broker", True, "connected")
    ok = max(each.seconds for each in disconnected) <= RECOVERY_GRACE
    return Check(pipeline, "broker", ok, loss(disconnected))


def loss(disconnected: Sequence[Disconnected]) -> str:
    """What waits for its broker, since when and why, however many publishers and consumers it is.

    `the consumers of 'orders-0' and 'orders-1' have been without their broker for 3 s: REASON`
    """
    seconds = max(each.seconds for each in disconnected)
    reasons = dict.fromkeys(each.reason for each in disconnected)
    have, their = ("has", "its") if len(_users(disconnected)) < 2 else ("have", "their")
    why = "; ".join(list(reasons)[:REASONS])
    return f"{_who(disconnected)} {have} been without {their} broker for {seconds:.0f} s: {why}"


def _users(disconnected: Sequence[Disconnected]) -> list[Disconnected]:
    return [each for each in disconnected if each.kind != "environment"]


def _who(disconnected: Sequence[Disconnected]) -> str:
    """The publishers and consumers; the client itself where it has none."""
    found = []
    for kind in dict.fromkeys(each.kind for each in _users(disconnected)):
        names = sorted(repr(each.name) for each in disconnected if each.kind == kind)
        found.append(f"the {kind}{'s' if len(names) > 1 else ''} of {listed(names)}")
    return " and ".join(found) or "the client"


def _handlers(statistics: Statistics) -> Check:
    for stage in statistics.stages:
        if stage.longest > statistics.stuck_after:
            detail = f"a handler of {stage.name!r} has not got on for {stage.longest:.0f} s"
            return Check(statistics.pipeline, "handlers", False, detail)
    return Check(statistics.pipeline, "handlers", True, "none is stuck")


def _progress(statistics: Statistics) -> Check:
    oldest = max((partition.oldest for partition in statistics.partitions), default=0.0)
    still = min(statistics.progress_age, oldest)
    limit = statistics.stuck_after + statistics.batch_timeout
    detail = f"{statistics.in_flight} in flight"
    if statistics.in_flight:
        detail += f", the last one settled {statistics.progress_age:.0f} s ago"
    stuck = statistics.in_flight > 0 and still > limit
    return Check(statistics.pipeline, "progress", not stuck, detail)


def _commits(statistics: Statistics, foreign_commit: ForeignCommit | None) -> Check:
    waited = statistics.uncommitted
    ok = waited <= COMMITS_MISSED * statistics.commit_interval
    detail = "everything that may be is committed"
    if waited:
        detail = f"settled messages have been waiting for a commit for {waited:.0f} s"
    if foreign_commit is not None and foreign_commit.seconds <= FOREIGN_COMMIT_SHOWN:
        event = foreign_commit.event
        detail += (
            f"; something else stored {event.found} for {event.stream!r} under "
            f"{event.reference!r}, where this run has "
            f"{'none' if event.expected is None else event.expected}: seen "
            f"{foreign_commit.seconds:.0f} s ago"
        )
    return Check(statistics.pipeline, "commits", ok, detail)


def _retention(pipeline: str, truncation: Truncation | None) -> Check:
    if truncation is None:
        return Check(pipeline, "retention", True, "nothing was lost")
    ok = truncation.seconds > TRUNCATION_SHOWN
    were = "was" if truncation.messages == 1 else "were"
    lost = plural(truncation.messages, "message")
    detail = f"{lost} {were} lost {truncation.seconds:.0f} s ago"
    return Check(pipeline, "retention", ok, detail)
