"""The checks of /readyz: pure functions of what is known of each pipeline.

A pipeline is ready while it makes progress: it is running (or was paused on purpose) and connected,
and the messages that it receives are settled and committed. A failing check says what it found:

| check | fails |
| --- | --- |
| phase | while the run is starting, draining, closing or stopped |
| broker | during the first connect; `RECOVERY_GRACE` seconds after a connection was lost |
| handlers | when a handler call has made no progress for `stuck_after` seconds (of the pipeline) |
| progress | when messages are in flight and none was settled for `stuck_after` plus the longest |
| | batch timeout, in seconds |
| commits | when settled messages have waited for `COMMITS_MISSED` commit intervals |
| offset | when a run begins beyond the end of a stream, so that it handles nothing that is |
| | published before the stream reaches that offset |
| retention | for `TRUNCATION_SHOWN` seconds after messages were lost to retention |

A check passes again as soon as its cause has ended. Offsets that another writer stored are
mentioned by the check of commits but do not fail it: during a release the old and the new process
both run, and the old one is stopped only when the new one is ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flowstream.pipeline import Statistics
from flowstream.telemetry import OffsetMoved
from flowstream.texts import listed, plural

RECOVERY_GRACE = 2.0
"""Seconds that a broker may be disconnected: a leader that moves should not fail the check."""

REASONS = 3
"""Reasons that the text of a check lists, at most."""

COMMITS_MISSED = 3
"""Commit intervals after which uncommitted messages fail the check."""

TRUNCATION_SHOWN = 60.0
"""Seconds for which a loss to retention fails the check."""

FOREIGN_COMMIT_SHOWN = 60.0
"""Seconds for which an offset of another writer is mentioned."""

READY_PHASES = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check of a pipeline; `detail` says what it found."""

    pipeline: str
    name: str
    ok: bool
    detail: str

    @property
    def labels(self) -> tuple[str, str]:
        return self.pipeline, self.name


@dataclass(frozen=True, slots=True)
class Disconnected:
    """An environment, publisher or consumer (`kind`) that is "connecting" or "recovering".

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
    """`messages` were lost to retention, the last ones `seconds` ago."""

    messages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ForeignCommit:
    """`seconds` ago, the stored offset was one of another writer; `event` has the offsets."""

    event: OffsetMoved
    seconds: float


@dataclass(frozen=True, slots=True)
class PipelineHealth:
    """What the checks of one pipeline depend on; `statistics` is None until it runs."""

    pipeline: str
    statistics: Statistics | None
    disconnected: Sequence[Disconnected] = ()
    truncation: Truncation | None = None
    foreign_commit: ForeignCommit | None = None


def readiness(pipelines: Sequence[PipelineHealth]) -> list[Check]:
    """Every check of every pipeline. Without any pipeline, one check that fails."""
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
        yield _offset(statistics)
    yield _retention(name, known.truncation)


def _broker(pipeline: str, disconnected: Sequence[Disconnected]) -> Check:
    for each in disconnected:
        if each.state == "connecting":
            why = f": {each.reason}" if each.reason else ""
            return Check(pipeline, "broker", False, f"{_who([each])} is connecting{why}")
    if not disconnected:
        return Check(pipeline, "broker", True, "connected")
    ok = max(each.seconds for each in disconnected) <= RECOVERY_GRACE
    return Check(pipeline, "broker", ok, disconnection(disconnected))


def disconnection(disconnected: Sequence[Disconnected]) -> str:
    """One sentence about everything that is disconnected, since when and why.

    `the consumers of 'orders-0' and 'orders-1' have been disconnected for 3 s: REASON`
    """
    seconds = max(each.seconds for each in disconnected)
    reasons = dict.fromkeys(each.reason for each in disconnected)
    have = "has" if len(_users(disconnected)) < 2 else "have"
    why = "; ".join(list(reasons)[:REASONS])
    return f"{_who(disconnected)} {have} been disconnected for {seconds:.0f} s: {why}"


def _users(disconnected: Sequence[Disconnected]) -> list[Disconnected]:
    return [each for each in disconnected if each.kind != "environment"]


def _who(disconnected: Sequence[Disconnected]) -> str:
    """The publishers and consumers; the client if there are none."""
    found = []
    for kind in dict.fromkeys(each.kind for each in _users(disconnected)):
        names = sorted(repr(each.name) for each in disconnected if each.kind == kind)
        found.append(f"the {kind}{'s' if len(names) > 1 else ''} of {listed(names)}")
    return " and ".join(found) or "the client"


def _handlers(statistics: Statistics) -> Check:
    for stage in statistics.stages:
        if stage.longest > statistics.stuck_after:
            detail = f"a handler of {stage.name!r} has made no progress for {stage.longest:.0f} s"
            return Check(statistics.pipeline, "handlers", False, detail)
    return Check(statistics.pipeline, "handlers", True, "no handler is stuck")


def _progress(statistics: Statistics) -> Check:
    oldest = max((partition.oldest for partition in statistics.partitions), default=0.0)
    still = min(statistics.progress_age, oldest)
    limit = statistics.stuck_after + statistics.batch_timeout
    detail = f"{plural(statistics.in_flight, 'message')} in flight"
    if statistics.in_flight:
        detail += f"; a message was last settled {statistics.progress_age:.0f} s ago"
    stuck = statistics.in_flight > 0 and still > limit
    return Check(statistics.pipeline, "progress", not stuck, detail)


def _commits(statistics: Statistics, foreign_commit: ForeignCommit | None) -> Check:
    waited = statistics.uncommitted
    ok = waited <= COMMITS_MISSED * statistics.commit_interval
    detail = "no settled messages wait for a commit"
    if waited:
        detail = f"settled messages have been waiting for a commit for {waited:.0f} s"
    if foreign_commit is not None and foreign_commit.seconds <= FOREIGN_COMMIT_SHOWN:
        event = foreign_commit.event
        detail += f"; {foreign_commit.seconds:.0f} s ago, {foreign(event)}"
    return Check(statistics.pipeline, "commits", ok, detail)


def foreign(event: OffsetMoved) -> str:
    """One sentence about an offset that another writer stored."""
    ours = "none" if event.expected is None else event.expected
    return (
        f"the stored offset of {event.stream!r} under the reference {event.reference!r} was "
        f"{event.found}, from another writer (this run stored {ours})"
    )


def _offset(statistics: Statistics) -> Check:
    """Only before the first message: later, the offsets may be ahead of the last look at the end.

    An empty stream looks the same as one that retention has emptied.
    """
    for each in statistics.partitions:
        begins = None if each.received is not None or not each.active else each.committed
        if begins is not None and each.tail is not None and each.tail < begins:
            detail = (
                f"offset {begins:,} of {each.stream!r} is stored, and the stream ends at "
                f"{each.tail:,}: no message before {begins + 1:,} is handled"
            )
            return Check(statistics.pipeline, "offset", False, detail)
    return Check(statistics.pipeline, "offset", True, "no stored offset is beyond its stream")


def _retention(pipeline: str, truncation: Truncation | None) -> Check:
    if truncation is None:
        return Check(pipeline, "retention", True, "no messages were lost")
    ok = truncation.seconds > TRUNCATION_SHOWN
    were = "was" if truncation.messages == 1 else "were"
    lost = plural(truncation.messages, "message")
    detail = f"{lost} {were} lost to retention {truncation.seconds:.0f} s ago"
    return Check(pipeline, "retention", ok, detail)
