"""What a run looks like now and over the last minutes, as plain data.

`Board` joins two sources: the statistics of each running pipeline, read when somebody looks, and
telemetry events for what statistics do not keep (batches, failures with their reasons, commits,
connections). `sample` once a second keeps a bounded history. The live page, the health endpoints
and the terminal view all read it. It does no I/O; the clock is an argument.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from flowstream import __version__, telemetry
from flowstream.pipeline import LaneStatistics, StageStatistics, Statistics

HISTORY = 300
"""Samples kept: five minutes at one a second."""

WINDOW = 5
"""Samples a rate is taken over."""

MAX_FAILURES = 50
"""Kinds of failures kept: those of one stage, phase and error are one kind."""

Sample = dict[str, float]


class BatchFigures:
    """What closed the batches of one batcher, and how long their first messages waited."""

    __slots__ = ("count", "messages", "triggers", "waited")

    def __init__(self) -> None:
        self.count = 0
        self.messages = 0
        self.waited = 0.0
        self.triggers: Counter[str] = Counter()


class PipelineFigures:
    """One pipeline: where its statistics come from, and what events told beside them."""

    __slots__ = ("batches", "commits", "crashes", "failures", "history", "phase_since", "read")

    def __init__(self, read: Callable[[], Statistics], now: float) -> None:
        self.read = read
        self.phase_since = now
        self.batches: dict[str, BatchFigures] = {}
        self.commits: dict[str, float] = {}
        self.crashes = 0
        self.failures: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.history: deque[Sample] = deque(maxlen=HISTORY)


class Board:
    """Figures of every pipeline of a run; see the module for what reads them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.started = clock()
        self.pipelines: dict[str, PipelineFigures] = {}
        self.connections: Counter[str] = Counter()
        self.lost = 0
        self._credits: dict[str, int] = {}
        self._handlers: dict[type[telemetry.Event], Callable[..., None]] = {
            telemetry.BatchReady: self._on_batch_ready,
            telemetry.Failed: self._on_failed,
            telemetry.Committed: self._on_committed,
            telemetry.StageCrashed: self._on_stage_crashed,
            telemetry.PhaseChanged: self._on_phase_changed,
            telemetry.ConnectionOpened: self._on_connection_opened,
            telemetry.ConnectionLost: self._on_connection_lost,
            telemetry.ChunkReceived: self._on_chunk_received,
        }

    def watch(self, pipeline: str, read: Callable[[], Statistics]) -> None:
        """Show a pipeline, whose statistics `read` returns at any time."""
        figures = self.pipelines[pipeline] = PipelineFigures(read, self._clock())
        figures.history.append(_sample(read(), self._clock()))

    def statistics(self) -> list[Statistics]:
        """The statistics of every watched pipeline, read now."""
        return [figures.read() for figures in self.pipelines.values()]

    def now(self) -> float:
        """The time by the board's clock."""
        return self._clock()

    # --- events ---------------------------------------------------------------------------------

    def observe(self, event: telemetry.Event) -> None:
        """Fold one event in; those of pipelines that are not watched are ignored."""
        handler = self._handlers.get(type(event))
        if handler is None:
            return
        name = getattr(event, "pipeline", None)
        if name is None:
            handler(event)
        elif (figures := self.pipelines.get(name)) is not None:
            handler(figures, event)

    def _on_batch_ready(self, figures: PipelineFigures, event: telemetry.BatchReady) -> None:
        batches = figures.batches.setdefault(event.batcher, BatchFigures())
        batches.count += 1
        batches.messages += event.messages
        batches.waited += event.waited
        batches.triggers[event.trigger] += 1

    def _on_failed(self, figures: PipelineFigures, event: telemetry.Failed) -> None:
        key = (event.stage, event.phase, event.error)
        kind = figures.failures.pop(key, None) or {
            "stage": event.stage,
            "phase": event.phase,
            "error": event.error,
            "messages": 0,
        }
        kind["at"] = self._clock()
        kind["messages"] += event.messages
        figures.failures[key] = kind  # the newest is the last one
        if len(figures.failures) > MAX_FAILURES:
            del figures.failures[next(iter(figures.failures))]

    def _on_committed(self, figures: PipelineFigures, event: telemetry.Committed) -> None:
        figures.commits[event.stream] = self._clock()

    def _on_stage_crashed(self, figures: PipelineFigures, event: telemetry.StageCrashed) -> None:
        figures.crashes += 1

    def _on_phase_changed(self, figures: PipelineFigures, event: telemetry.PhaseChanged) -> None:
        figures.phase_since = self._clock()

    def _on_connection_opened(self, event: telemetry.ConnectionOpened) -> None:
        self.connections[event.role] += 1

    def _on_connection_lost(self, event: telemetry.ConnectionLost) -> None:
        self.connections[event.role] -= 1
        self.lost += 1

    def _on_chunk_received(self, event: telemetry.ChunkReceived) -> None:
        self._credits[event.stream] = event.credits

    # --- reading --------------------------------------------------------------------------------

    def sample(self) -> None:
        """Keep the counts of this moment; call it once a second."""
        now = self._clock()
        for figures in self.pipelines.values():
            figures.history.append(_sample(figures.read(), now))

    def snapshot(self) -> dict[str, Any]:
        """Everything the live page shows, as JSON-ready data."""
        now = self._clock()
        return {
            "version": __version__,
            "now": now,
            "uptime": now - self.started,
            "connections": dict(self.connections),
            "lost": self.lost,
            "pipelines": [
                self._describe(figures, figures.read(), now) for figures in self.pipelines.values()
            ],
        }

    def _describe(
        self, figures: PipelineFigures, statistics: Statistics, now: float
    ) -> dict[str, Any]:
        history = figures.history
        return {
            "name": statistics.pipeline,
            "phase": "paused" if statistics.paused else statistics.phase,
            "phase_seconds": now - figures.phase_since,
            "received": statistics.received,
            "settled": sum(statistics.settled.values()),
            "outcomes": in_order(statistics.settled),
            "in_flight": statistics.in_flight,
            "max_in_flight": statistics.max_in_flight,
            "failed": statistics.failed,
            "retried": statistics.retried,
            "crashes": figures.crashes,
            "rate": rate(history, "settled"),
            "lag": total_lag(statistics),
            "stages": [_describe_stage(figures, stage) for stage in statistics.stages],
            "streams": [self._describe_lane(figures, lane, now) for lane in statistics.lanes],
            "failures": [dict(kind) for kind in reversed(figures.failures.values())],
            "history": curves(history),
        }

    def _describe_lane(
        self, figures: PipelineFigures, lane: LaneStatistics, now: float
    ) -> dict[str, Any]:
        committed_at = figures.commits.get(lane.stream)
        return {
            "stream": lane.stream,
            "received": lane.received,
            "settled": lane.watermark,
            "committed": lane.committed,
            "commit_age": None if committed_at is None else now - committed_at,
            "lag": lane.lag,
            "lag_seconds": lane.lag_seconds,
            "credits": self._credits.get(lane.stream),
        }


def _describe_stage(figures: PipelineFigures, stage: StageStatistics) -> dict[str, Any]:
    batches = figures.batches.get(stage.name)
    return {
        "name": stage.name,
        "kind": stage.kind,
        "concurrency": stage.concurrency,
        "active": stage.busy,
        "busy": min(1.0, rate(figures.history, f"busy:{stage.name}")),
        "waiting": stage.waiting,
        "parked": stage.parked,
        "handled": stage.handled,
        "failed": stage.failed,
        "longest": stage.longest,
        "rate": rate(figures.history, f"handled:{stage.name}"),
        "batches": batches.count if batches else 0,
        "mean_batch": batches.messages / batches.count if batches else None,
        "mean_wait": batches.waited / batches.count if batches else None,
        "triggers": dict(batches.triggers) if batches else {},
    }


def _sample(statistics: Statistics, now: float) -> Sample:
    sample: Sample = {
        "at": now,
        "settled": sum(statistics.settled.values()),
        "failed": statistics.failed,
        "in_flight": statistics.in_flight,
        "lag": total_lag(statistics) or 0,
    }
    for stage in statistics.stages:
        # Seconds in handlers per worker: how fast they grow is how busy the stage is.
        sample[f"busy:{stage.name}"] = stage.seconds / stage.concurrency
        sample[f"handled:{stage.name}"] = stage.handled
    return sample


def in_order(settled: Mapping[str, int]) -> dict[str, int]:
    """Outcomes that occurred, the good one first."""
    return {name: settled[name] for name in sorted(settled, key=_rank) if settled[name]}


def _rank(outcome: str) -> tuple[bool, str]:
    return outcome != "ok", outcome


def total_lag(statistics: Statistics) -> int | None:
    """Messages behind over all streams; None while no stream's end is known."""
    known = [lane.lag for lane in statistics.lanes if lane.lag is not None]
    return sum(known) if known else None


def rate(history: deque[Sample], key: str, window: int = WINDOW) -> float:
    """How fast a count grew per second over the last `window` samples."""
    if len(history) < 2:
        return 0.0
    last = history[-1]
    first = history[max(0, len(history) - 1 - window)]
    span = last["at"] - first["at"]
    return (last.get(key, 0.0) - first.get(key, 0.0)) / span if span > 0 else 0.0


def curves(history: deque[Sample]) -> dict[str, list[float]]:
    """What the small charts draw: one point per sample."""
    points = list(history)
    steps = list(pairwise(points))
    return {
        "at": [point["at"] for point in points[1:]],
        "rate": [_per_second(before, after, "settled") for before, after in steps],
        "failed": [_per_second(before, after, "failed") for before, after in steps],
        "lag": [point["lag"] for point in points[1:]],
        "in_flight": [point["in_flight"] for point in points[1:]],
    }


def _per_second(before: Sample, after: Sample, key: str) -> float:
    span = after["at"] - before["at"]
    return (after[key] - before[key]) / span if span > 0 else 0.0
