"""The state of a run, now and over the last minutes, as plain data.

`Board` has two sources: the statistics of each running pipeline, read on demand, and telemetry
events for what statistics do not contain (batches, commits, connections, the event log). `sample`,
called once a second, keeps a bounded history. The live page, the health endpoints and the terminal
view read it. It does no I/O. Times of day are those of the system, which may set its clock back, so
durations are those of a steady clock; a `clock` of a test is both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from flowstream import telemetry
from flowstream.monitor.advice import advice
from flowstream.monitor.condition import ORDER
from flowstream.monitor.event_log import EventLog
from flowstream.monitor.figures import PipelineFigures
from flowstream.monitor.health import (
    Check,
    Disconnected,
    ForeignCommit,
    PipelineHealth,
    Truncation,
    disconnection,
    readiness,
)
from flowstream.monitor.history import ProcessUsage
from flowstream.monitor.snapshot import pipeline_snapshot
from flowstream.pipeline import Pipeline, Statistics
from flowstream.version import __version__

FREQUENT = frozenset(
    {
        telemetry.BatchReady,
        telemetry.ChunkReceived,
        telemetry.Committed,
        telemetry.Confirmed,
        telemetry.HandlerDone,
        telemetry.LoopTurned,
        telemetry.Published,
        telemetry.Received,
        telemetry.Settled,
    }
)
"""Events of every slice, batch or chunk: they never become an entry of the event log."""


class Board:
    """The state of every pipeline of a run, and an observer of its telemetry."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.time
        self._steady = clock or time.monotonic
        self._started = self._steady()
        self.pipelines: dict[str, PipelineFigures] = {}
        self.connections: Counter[str] = Counter()
        self.lost: int = 0
        self.broker: str = ""
        """Which broker the run uses; empty if that is not known."""
        self.events: Final = EventLog()
        self.usage: Final = ProcessUsage()
        self._disconnected: dict[tuple[str, str, str], tuple[str, str, float]] = {}
        """By environment, kind and name: state, reason, and since when."""
        self._credits: dict[str, int] = {}
        self._handlers: dict[type[telemetry.Event], Callable[..., None]] = {
            telemetry.BatchReady: self._on_batch_ready,
            telemetry.Settled: self._on_settled,
            telemetry.Dropped: self._on_dropped,
            telemetry.Abandoned: self._on_abandoned,
            telemetry.Committed: self._on_committed,
            telemetry.CommitFailed: self._on_commit_failed,
            telemetry.Truncated: self._on_truncated,
            telemetry.OffsetMoved: self._on_offset_moved,
            telemetry.PartitionMoved: self._on_partition_moved,
            telemetry.StageCrashed: self._on_stage_crashed,
            telemetry.PhaseChanged: self._on_phase_changed,
            telemetry.ConnectionOpened: self._on_connection_opened,
            telemetry.ConnectionLost: self._on_connection_lost,
            telemetry.StateChanged: self._on_state_changed,
            telemetry.RecoveryFailed: self._on_recovery_failed,
            telemetry.ChunkReceived: self._on_chunk_received,
            telemetry.Halted: self._on_halted,
        }

    def expect(self, pipeline: str) -> None:
        """Announce a pipeline that is starting: from now on the run is not ready without it."""
        self.pipelines[pipeline] = PipelineFigures(pipeline, self._steady())

    def watch(
        self, pipeline: str, read: Callable[[], Statistics], declared: Pipeline | None = None
    ) -> None:
        """Show a running pipeline; `read` returns its current statistics.

        `declared` is its declaration, which makes its settings available.
        """
        if pipeline not in self.pipelines:
            self.expect(pipeline)
        figures = self.pipelines[pipeline]
        figures.read = read
        figures.pipeline = declared
        figures.sample(read(), self._clock())

    # --- events ---------------------------------------------------------------------------------

    def observe(self, event: telemetry.Event) -> None:
        """Apply one event. Events of a pipeline that was not announced are ignored."""
        handler, logged = self._handlers.get(type(event)), type(event) not in FREQUENT
        if handler is None and not logged:
            return
        name = getattr(event, "pipeline", None)
        figures = None if name is None else self.pipelines.get(name)
        if name is not None and figures is None:
            return
        if logged:
            self.events.observe(event, self._clock())
        if handler is None:
            return
        if figures is None:
            handler(event)
        else:
            handler(figures, event)

    def _on_batch_ready(self, figures: PipelineFigures, event: telemetry.BatchReady) -> None:
        batches = figures.batches[event.batcher]
        batches.count += 1
        batches.messages += event.messages
        batches.waited += event.waited
        batches.triggers[event.trigger] += 1

    def _on_settled(self, figures: PipelineFigures, event: telemetry.Settled) -> None:
        if event.latency is not None:
            figures.latency += event.latency * event.messages
            figures.timed += event.messages
            figures.latencies.observe(event.latency, event.messages)

    def _on_dropped(self, figures: PipelineFigures, event: telemetry.Dropped) -> None:
        figures.drop(event.reason, event.messages, intentional=event.intentional)

    def _on_abandoned(self, figures: PipelineFigures, event: telemetry.Abandoned) -> None:
        figures.abandoned += event.messages

    def _on_committed(self, figures: PipelineFigures, event: telemetry.Committed) -> None:
        figures.commits[event.stream] = self._steady()

    def _on_commit_failed(self, figures: PipelineFigures, event: telemetry.CommitFailed) -> None:
        figures.commit_failures += 1

    def _on_truncated(self, figures: PipelineFigures, event: telemetry.Truncated) -> None:
        figures.truncated += event.messages
        figures.truncated_at = self._steady()

    def _on_offset_moved(self, figures: PipelineFigures, event: telemetry.OffsetMoved) -> None:
        figures.foreign_commit = event, self._steady()

    def _on_partition_moved(
        self, figures: PipelineFigures, event: telemetry.PartitionMoved
    ) -> None:
        if event.lost:  # it is unknown which process reads it now
            figures.partitions.pop(event.stream, None)
        else:
            figures.partitions[event.stream] = event.active
        if not event.active:
            figures.commits.pop(event.stream, None)

    def _on_stage_crashed(self, figures: PipelineFigures, event: telemetry.StageCrashed) -> None:
        figures.crashes += 1
        figures.crashed_at = self._steady()

    def _on_halted(self, figures: PipelineFigures, event: telemetry.Halted) -> None:
        figures.error = event.reason

    def _on_phase_changed(self, figures: PipelineFigures, event: telemetry.PhaseChanged) -> None:
        figures.phase_since = self._steady()

    def _on_connection_opened(self, event: telemetry.ConnectionOpened) -> None:
        self.connections[event.role] += 1

    def _on_connection_lost(self, event: telemetry.ConnectionLost) -> None:
        self.connections[event.role] -= 1
        if event.cause != "request":
            self.lost += 1

    def _on_state_changed(self, event: telemetry.StateChanged) -> None:
        key = (event.environment, event.kind, event.name)
        if event.state in {"connecting", "recovering"}:
            self._disconnected[key] = (event.state, event.reason, self._steady())
        else:
            self._disconnected.pop(key, None)
            self._disconnected.pop(
                ("", event.kind, event.name), None
            )  # a pipeline that announced it

    def _on_recovery_failed(self, event: telemetry.RecoveryFailed) -> None:
        """Show what is in the way now: the reason of the loss says that it was lost."""
        key = (event.environment, event.kind, event.name)
        if key in self._disconnected:
            state, _, since = self._disconnected[key]
            self._disconnected[key] = (state, event.error, since)

    def _on_chunk_received(self, event: telemetry.ChunkReceived) -> None:
        self._credits[event.stream] = event.credits

    # --- reading --------------------------------------------------------------------------------

    def log_event(self, pipeline: str, text: str) -> None:
        """Add an entry to the event log that no telemetry event causes."""
        self.events.add(self._clock(), "info", text, pipeline=pipeline)

    def sample(self, memory: int | None = None) -> None:
        """Keep a sample of all counts; call it once a second.

        `memory` is the memory that the process uses, in bytes.
        """
        now = self._clock()
        self.usage.sample(now, memory)
        for figures in self.pipelines.values():
            if figures.read is not None:
                figures.sample(figures.read(), now)

    def statistics(self) -> list[Statistics]:
        """The current statistics of every running pipeline."""
        return [each.read() for each in self.pipelines.values() if each.read is not None]

    def health(self) -> list[PipelineHealth]:
        """What the checks depend on, for every pipeline that is running or announced.

        What a pipeline has announced keeps it from being ready from its start on: until then it is
        not ready anyway, and waits for something else, such as its lifespan.
        """
        now = self._steady()
        away = self._absent()
        return [
            PipelineHealth(
                figures.name,
                None if figures.read is None else figures.read(),
                [
                    each
                    for each in away
                    if self._concerns(each, figures.name)
                    and (each.environment or figures.read is not None)
                ],
                Truncation(figures.truncated, now - figures.truncated_at)
                if figures.truncated
                else None,
                None
                if figures.foreign_commit is None
                else ForeignCommit(figures.foreign_commit[0], now - figures.foreign_commit[1]),
            )
            for figures in self.pipelines.values()
        ]

    def _absent(self) -> list[Disconnected]:
        """Everything that is connecting or recovering."""
        now = self._steady()
        return [
            Disconnected(kind, name, state, now - since, reason, environment)
            for (environment, kind, name), (state, reason, since) in self._disconnected.items()
        ]

    def _concerns(self, disconnected: Disconnected, pipeline: str) -> bool:
        """Whether a pipeline is affected: not if the environment is that of another pipeline."""
        owner = disconnected.environment.removeprefix("flowstream ")
        return owner == pipeline or owner not in self.pipelines

    def losses(self) -> list[dict[str, Any]]:
        """The lost connections of each environment, in one sentence."""
        lost: dict[str, list[Disconnected]] = {}
        for each in self._absent():
            if each.state == "recovering":
                lost.setdefault(each.environment, []).append(each)
        return [
            {
                "environment": environment,
                "for": max(each.seconds for each in away),
                "text": disconnection(away),
            }
            for environment, away in lost.items()
        ]

    def snapshot(self) -> dict[str, Any]:
        """Everything that the live page shows, as JSON-ready data."""
        checks = readiness(self.health())
        return {
            "version": __version__,
            "broker": self.broker,
            "now": self._clock(),
            "uptime": self._steady() - self._started,
            "connections": dict(+self.connections),
            "lost": self.lost,
            "losses": [each | advice("broker") for each in self.losses()],
            "away": [
                {
                    "kind": each.kind,
                    "name": each.name,
                    "state": each.state,
                    "reason": each.reason,
                    "for": each.seconds,
                    "environment": each.environment,
                }
                for each in self._absent()
                if each.environment  # others are announced, and nothing connects them yet
            ],
            "starting": [each.name for each in self.pipelines.values() if each.read is None],
            "not_ready": [_shown(check) for check in checks if not check.ok],
            "pipelines": self._pipelines(checks, self._steady()),
            "events": self.events.newest(),
            "process": self.usage.describe(),
        }

    def _pipelines(self, checks: list[Check], now: float) -> list[dict[str, Any]]:
        """The snapshots of all running pipelines, those that need attention first."""
        described = [
            pipeline_snapshot(
                figures,
                figures.read(),
                self._credits,
                [check for check in checks if check.pipeline == figures.name],
                now,
            )
            for figures in self.pipelines.values()
            if figures.read is not None
        ]
        return sorted(described, key=_rank)


def _rank(pipeline: dict[str, Any]) -> tuple[int, bool, bool]:
    """Sorts by condition, then those that read a stream, then those that received messages."""
    condition = ORDER.index(pipeline["condition"]["name"])
    return condition, pipeline["lag"] is None, pipeline["received"] == 0


def _shown(check: Check) -> dict[str, str]:
    about = advice(check.name)
    return {"pipeline": check.pipeline, "check": check.name, "detail": check.detail, **about}
