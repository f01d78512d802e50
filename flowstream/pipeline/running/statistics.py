"""Snapshots and results of a run, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowstream.pipeline.deciders.key_load import HotKey
from flowstream.pipeline.deciders.rate_limit import RateLimit
from flowstream.pipeline.ends import End
from flowstream.pipeline.state.reasons import Reason
from flowstream.texts import record


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """A processor or batcher. Times are seconds, counts are since the start of the run.

    `handled`, `failed` and `retried` count every attempt of a message.

    `waiting` messages are queued (of a batcher also in `open_batches`), `parked` ones wait for
    another attempt, `busy` of `concurrency` workers are in a handler, the longest of them for
    `longest` seconds. `hot_key` is the key that most of the recent messages have, of a stage that
    keeps the order of keys, once there were enough. `times` are worker-seconds by state.

    `held` of the waiting messages of a sink that writes exactly once are in no batch yet: messages
    before them are not decided. `waits_for` has the first such message of each stream, as stream
    and offset.
    """

    name: str
    kind: str
    concurrency: int
    busy: int
    waiting: int
    parked: int
    open_batches: int
    handled: int
    failed: int
    retried: int
    seconds: float
    longest: float
    hung: int
    hot_key: HotKey | None
    times: Mapping[str, float]
    held: int = 0
    waits_for: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PartitionStatistics:
    """One stream: the last offset received, the watermark, and what was committed.

    `tail` is the offset of the stream's last message, looked up a few seconds ago. `lag` is the
    number of messages behind the watermark, received or not; `lag_seconds` is the age of the first
    of them (0 if there is none), and `oldest` how long ago it was received (0 if it was not).
    `catch_up` is the seconds until the lag is 0 if it keeps falling as in the last half minute,
    None if it does not fall. A value that is not known is None.

    A stream that is not `active` is read by another process (this one is a standby): its lag
    is what is behind the stored offset.
    """

    stream: str
    received: int | None
    watermark: int | None
    committed: int | None
    tail: int | None
    lag: int | None
    lag_seconds: float | None
    deliveries: int
    oldest: float
    catch_up: float | None = None
    active: bool = True


@dataclass(frozen=True, slots=True)
class Statistics:
    """All counters of a run. `progress_age` is the seconds since a message settled.

    `awaiting_policy` failures are at their failure policy; `held` of them wait until all messages
    before theirs are decided, because dead letters are published exactly once.

    `failed` are messages that failed permanently, `failed_attempts` counts all failed attempts;
    `reasons` say why, and what became of the messages, the most frequent reason first.

    `uncommitted` is for how many seconds settled messages have been waiting for a commit, and
    `source` the producer's seconds by state: busy, idle, backpressured (the window is full),
    rate_limited, paused. `slow_after`, `stuck_after`, `batch_timeout` (the longest of any
    batcher) and `commit_interval` are those of the declaration, to judge the others by; `ends` are
    where messages end, each with its guarantee.
    """

    pipeline: str
    phase: str
    paused: bool
    uptime: float
    received: int
    settled: Mapping[str, int]
    failed: int
    retried: int
    in_flight: int
    in_flight_bytes: int
    max_in_flight: int
    max_in_flight_bytes: int
    highest_in_flight: int
    highest_in_flight_bytes: int
    rate_limit: RateLimit | None
    awaiting_policy: int
    restarts: int
    hung: int
    progress_age: float
    uncommitted: float
    source: Mapping[str, float]
    slow_after: float
    stuck_after: float
    batch_timeout: float
    commit_interval: float
    stages: tuple[StageStatistics, ...]
    partitions: tuple[PartitionStatistics, ...]
    failed_attempts: int = 0
    reasons: tuple[Reason, ...] = ()
    ends: tuple[End, ...] = ()
    held: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """How a run ended. `settled` counts messages by outcome, `committed` is by stream.

    `reason` is "ended" (a finite source), "stopped", "halted", "drain timeout", "aborted" or
    "failed"; `error` the exception for all but the first two. It is "running" if `wait_idle`
    returned while the run continues: the figures are those until then. `hung` names handlers that
    could not be ended: their threads still run. `discarded` are the messages of `discard=` that
    were discarded, by stream and offset; `not_discarded` has the others, with the reason. `failed`
    are messages that failed permanently; `reasons` say why attempts failed, and what became of the
    messages, the most frequent reason first. `repeated` are messages that were settled, but come
    after one that was not: the next run gets them again.
    """

    pipeline: str
    reason: str
    received: int
    settled: Mapping[str, int]
    failed: int
    retried: int
    unsettled: int
    committed: Mapping[str, int | None]
    seconds: float
    error: BaseException | None = None
    hung: tuple[str, ...] = ()
    discarded: tuple[tuple[str, int], ...] = ()
    not_discarded: Mapping[tuple[str, int], str] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    repeated: int = 0

    __repr__ = record

    @property
    def handled(self) -> int:
        """Messages settled in this run, whatever the outcome."""
        return sum(self.settled.values())

    def raise_for_error(self) -> RunResult:
        """Raise `error` if there is one."""
        if self.error is not None:
            raise self.error
        return self
