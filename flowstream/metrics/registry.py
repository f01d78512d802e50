"""`Metrics`: the observer that turns telemetry events into the metrics of the catalogue.

It counts per slice, batch, commit or connection, never per message. Values that a pipeline's
statistics already have (queues, offsets, lag) are set at each scrape, by the callables in
`before_scrape`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from flowstream import telemetry
from flowstream.metrics.catalogue import CATALOGUE
from flowstream.metrics.series import Distribution, Labels, Values
from flowstream.version import __version__

MAX_VALUES = 50
"""Different values of an undeclared label (error, reason) that are kept; the rest is OTHER."""

OTHER = "other"
OUTCOMES = ("ok", "dropped", "discarded", "dead_lettered")
PHASES = ("starting", "running", "draining", "closing", "stopped")
COMMIT_RESULTS = ("sent", "verified", "failed")
PARTS: dict[str, tuple[str, ...]] = {
    "consumer": ("credits", "buffered_bytes"),
    "publisher": ("unconfirmed_messages",),
}
"""Gauges of a stream that are the sum of what each consumer or publisher has."""


class _Bounded:
    """Returns the first `limit` different values of a label unchanged, and OTHER for the rest."""

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = MAX_VALUES) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class Metrics:
    """Every metric of `CATALOGUE` in a Prometheus registry of its own, fed by `observe`.

    The callables in `before_scrape` update gauges at each scrape. The registry also has the metrics
    of the garbage collector (`python_gc_*`) from the Prometheus client, and those of the process
    (`process_*`) as of the last `measure_process`. Use it on the event loop only: it has no locks.
    """

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry(auto_describe=False)
        self.before_scrape: list[Callable[[Metrics], None]] = []
        self._values = {m.name: Values(m) for m in CATALOGUE if m.kind != "histogram"}
        self._distributions = {m.name: Distribution(m) for m in CATALOGUE if m.kind == "histogram"}
        self._error, self._reason = _Bounded(), _Bounded()
        # These are updated for every slice and batch: a lookup by name each time would be slower.
        rows = {name: values.rows for name, values in self._values.items()}
        self._received = rows["received_messages"], rows["received_bytes"]
        self._settled, self._handled = rows["settled_messages"], rows["handled_messages"]
        self._batches = rows["batches"]
        self._batch_messages = self._distributions["batch_messages"]
        self._batch_wait = self._distributions["batch_wait_seconds"]
        self._latency = self._distributions["latency_seconds"]
        self._handler_duration = self._distributions["handler_duration_seconds"]
        self._states: dict[tuple[str, str], dict[int, str]] = {}
        """By kind and name, the states of all that have it, by their numbers."""
        self._parts: dict[tuple[str, str], dict[int, float]] = {}
        """By metric and stream, what each consumer or publisher of the stream has."""
        self._headroom: dict[str, dict[str, int]] = {}
        """By stream and reference of the consumer."""
        self._process = ProcessCollector(registry=None)
        self._measured: list[Family] = []
        self._handlers: dict[type[telemetry.Event], Callable[..., None]] = {
            telemetry.Received: self._on_received,
            telemetry.HandlerDone: self._on_handler_done,
            telemetry.BatchReady: self._on_batch_ready,
            telemetry.Settled: self._on_settled,
            telemetry.Dropped: self._on_dropped,
            telemetry.Abandoned: self._on_abandoned,
            telemetry.AttemptFailed: self._on_attempt_failed,
            telemetry.Failed: self._on_failed,
            telemetry.Retried: self._on_retried,
            telemetry.Committed: self._on_committed,
            telemetry.CommitFailed: self._on_commit_failed,
            telemetry.Truncated: self._on_truncated,
            telemetry.OffsetMoved: self._on_offset_moved,
            telemetry.PartitionMoved: self._on_partition_moved,
            telemetry.SubscribedAgain: self._on_subscribed_again,
            telemetry.StageCrashed: self._on_stage_crashed,
            telemetry.HandlerStuck: self._on_handler_stuck,
            telemetry.PhaseChanged: self._on_phase_changed,
            telemetry.ConnectionOpened: self._on_connection_opened,
            telemetry.ConnectionLost: self._on_connection_lost,
            telemetry.StateChanged: self._on_state_changed,
            telemetry.ChunkReceived: self._on_chunk_received,
            telemetry.Overtaken: self._on_overtaken,
            telemetry.RetentionLooked: self._on_retention_looked,
            telemetry.Published: self._on_published,
            telemetry.Confirmed: self._on_confirmed,
            telemetry.LoopTurned: self._on_loop_turned,
        }
        self.set("build_info", 1, __version__, platform.python_version())
        self.registry.register(self)
        GCCollector(registry=self.registry)

    # --- reading --------------------------------------------------------------------------------

    def collect(self) -> Iterator[Family]:
        """Every metric, for the registry."""
        yield from (series.family() for series in self._values.values())
        yield from (series.family() for series in self._distributions.values())
        yield from self._measured

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and body for a scrape that accepts `accept`."""
        for refresh in self.before_scrape:
            refresh(self)
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self.registry)

    def measure_process(self) -> None:
        """Read the metrics of this process from the system, for the next exposition.

        It reads files: call it in a worker thread.
        """
        self._measured = list(self._process.collect())

    # --- writing --------------------------------------------------------------------------------

    def observe(self, event: telemetry.Event) -> None:
        """Count one event. Events without a metric are ignored."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge of the catalogue by its short name."""
        self._values[name].set(value, *labels)

    def replace(self, name: str, rows: Mapping[Labels, float]) -> None:
        """Replace all values of a metric, by their labels: of a gauge, or of a counter that the
        caller counts."""
        self._values[name].replace(rows)

    def _add(self, name: str, amount: float, *labels: str) -> None:
        self._values[name].add(amount, labels)

    def _set_part(self, name: str, stream: str, number: int, value: float) -> None:
        """Set a gauge of a stream to the sum of what its consumers or publishers have."""
        parts = self._parts.setdefault((name, stream), {})
        parts.pop(number, None)
        if value:
            parts[number] = value
        self.set(name, sum(parts.values()), stream)

    def _ensure(self, name: str, *labels: str) -> None:
        self._values[name].ensure(*labels)

    # --- messages -------------------------------------------------------------------------------

    def _on_received(self, event: telemetry.Received) -> None:
        labels = (event.pipeline, event.stream)
        messages, size = self._received
        if labels not in messages:
            self._start_counters(*labels)
        messages[labels] += event.messages
        size[labels] += event.bytes

    def _start_counters(self, pipeline: str, stream: str) -> None:
        """Start the counters of a stream at 0: Prometheus sees no increase if the first is 1."""
        for outcome in OUTCOMES:
            self._ensure("settled_messages", pipeline, stream, outcome)
        for result in COMMIT_RESULTS:
            self._ensure("commits", pipeline, stream, result)
        self._ensure("received_messages", pipeline, stream)
        self._ensure("received_bytes", pipeline, stream)
        self._ensure("abandoned_messages", pipeline, stream)
        self._ensure("truncated_messages", pipeline, stream)
        self._ensure("foreign_commits", pipeline, stream)

    def _on_settled(self, event: telemetry.Settled) -> None:
        labels = (event.pipeline, event.stream, event.outcome)
        self._settled[labels] = self._settled.get(labels, 0) + event.messages
        if event.latency is not None:
            self._latency.observe(event.latency, labels[:2], event.messages)

    def _on_dropped(self, event: telemetry.Dropped) -> None:
        labels = (event.pipeline, event.stream, self._reason(event.reason))
        self._add("dropped_messages", event.messages, *labels, _boolean(event.intentional))

    def _on_abandoned(self, event: telemetry.Abandoned) -> None:
        self._add("abandoned_messages", event.messages, event.pipeline, event.stream)

    def _on_attempt_failed(self, event: telemetry.AttemptFailed) -> None:
        labels = (event.pipeline, event.stage, event.phase)
        self._add("failed_attempts", event.messages, *labels, self._error(event.error))

    def _on_failed(self, event: telemetry.Failed) -> None:
        labels = (event.pipeline, event.stage, event.phase)
        self._add("failed_messages", event.messages, *labels, self._error(event.error))

    def _on_retried(self, event: telemetry.Retried) -> None:
        error = self._error(event.error)
        self._add("retried_messages", event.messages, event.pipeline, event.stage, error)

    # --- stages and the run ---------------------------------------------------------------------

    def _on_handler_done(self, event: telemetry.HandlerDone) -> None:
        labels = (event.pipeline, event.stage)
        if labels not in self._handled:
            self._ensure("stuck_handlers", *labels)
            self._ensure("stage_crashes", *labels, "true")
        self._handled[labels] = self._handled.get(labels, 0) + event.messages
        self._handler_duration.observe(event.seconds, labels)

    def _on_batch_ready(self, event: telemetry.BatchReady) -> None:
        labels = (event.pipeline, event.batcher)
        closed = (event.pipeline, event.batcher, event.trigger)
        self._batches[closed] = self._batches.get(closed, 0) + 1
        self._batch_messages.observe(event.messages, labels)
        self._batch_wait.observe(event.waited, labels)

    def _on_stage_crashed(self, event: telemetry.StageCrashed) -> None:
        self._add("stage_crashes", 1, event.pipeline, event.stage, _boolean(event.restarted))

    def _on_handler_stuck(self, event: telemetry.HandlerStuck) -> None:
        self._add("stuck_handlers", 1, event.pipeline, event.stage)

    def _on_phase_changed(self, event: telemetry.PhaseChanged) -> None:
        for phase in PHASES:
            self.set("phase", phase == event.phase, event.pipeline, phase)
        if event.phase == "running":
            self.set("start_timestamp_seconds", time.time() - event.seconds, event.pipeline)

    def _on_loop_turned(self, event: telemetry.LoopTurned) -> None:
        self._distributions["event_loop_lag_seconds"].observe(event.late, ())

    # --- offsets --------------------------------------------------------------------------------

    def _on_committed(self, event: telemetry.Committed) -> None:
        labels = (event.pipeline, event.stream)
        self._add("commits", 1, *labels, "verified" if event.verified else "sent")
        self.set("committed_offset", event.offset, *labels)
        self.set("last_commit_timestamp_seconds", time.time(), *labels)

    def _on_commit_failed(self, event: telemetry.CommitFailed) -> None:
        self._add("commits", 1, event.pipeline, event.stream, "failed")

    def _on_truncated(self, event: telemetry.Truncated) -> None:
        self._add("truncated_messages", event.messages, event.pipeline, event.stream)

    def _on_offset_moved(self, event: telemetry.OffsetMoved) -> None:
        self._add("foreign_commits", 1, event.pipeline, event.stream)

    def _on_partition_moved(self, event: telemetry.PartitionMoved) -> None:
        group = (event.pipeline, event.super_stream)
        self.set("partition_active", event.active, *group, event.stream)
        active = sum(
            value
            for labels, value in self._values["partition_active"].rows.items()
            if labels[:2] == group
        )
        self.set("active_partitions", active, *group)
        self._ensure("rebalances", *group)
        for direction in ("gained", "lost"):
            self._ensure("partition_moves", *group, direction)
        if event.active:
            self._add("partition_moves", 1, *group, "gained")
        elif event.seconds is not None:
            self._add("partition_moves", 1, *group, "lost")
            if not event.lost:
                self._distributions["hand_over_duration_seconds"].observe(event.seconds, group)
            for name in ("committed_offset", "last_commit_timestamp_seconds"):
                self._values[name].remove(event.pipeline, event.stream)

    def _on_subscribed_again(self, event: telemetry.SubscribedAgain) -> None:
        self._add("rebalances", 1, event.pipeline, event.super_stream)

    # --- the client -----------------------------------------------------------------------------

    def _on_connection_opened(self, event: telemetry.ConnectionOpened) -> None:
        self._add("connections_opened", 1, event.role)
        self._add("connections", 1, event.role)

    def _on_connection_lost(self, event: telemetry.ConnectionLost) -> None:
        self._add("connections", -1, event.role)
        if event.cause != "request":
            self._add("connections_lost", 1, event.role, event.cause or OTHER)

    def _on_state_changed(self, event: telemetry.StateChanged) -> None:
        labels = (event.kind, event.name)
        states = self._states.setdefault(labels, {})
        before = states.pop(event.number, None)
        if event.state != "closed":
            states[event.number] = event.state
        self.set("recovering", "recovering" in states.values(), *labels)
        if event.state == "closed":
            for name in PARTS.get(event.kind, ()):
                self._set_part(name, event.name, event.number, 0)
            if not states:
                self._forget(*labels)
            if event.kind == "consumer":  # another one of the stream looks again soon
                self._headroom.pop(event.name, None)
                self._values["retention_headroom_messages"].remove(event.name)
            return
        self._ensure("recoveries", *labels)
        if before == "recovering" and event.state == "open":
            self._add("recoveries", 1, *labels)
            self._distributions["recovery_duration_seconds"].observe(event.seconds, (event.kind,))

    def _forget(self, kind: str, name: str) -> None:
        """The last one of this kind and name is closed."""
        del self._states[kind, name]
        self._values["recovering"].remove(kind, name)
        for part in PARTS.get(kind, ()):
            del self._parts[part, name]
            self._values[part].remove(name)

    def _on_chunk_received(self, event: telemetry.ChunkReceived) -> None:
        self._add("chunks", 1, event.stream)
        self._add("delivered_messages", event.messages, event.stream)
        self._add("delivered_bytes", event.bytes, event.stream)
        self._ensure("overtaken_messages", event.stream)
        self._set_part("credits", event.stream, event.number, event.credits)
        self._set_part("buffered_bytes", event.stream, event.number, event.buffered)

    def _on_overtaken(self, event: telemetry.Overtaken) -> None:
        self._add("overtaken_messages", event.messages, event.stream)

    def _on_retention_looked(self, event: telemetry.RetentionLooked) -> None:
        known = self._headroom.setdefault(event.stream, {})
        known[event.reference] = event.headroom
        self.set("retention_headroom_messages", min(known.values()), event.stream)

    def _on_published(self, event: telemetry.Published) -> None:
        self._add("published_messages", event.messages, event.stream)
        self._add("published_bytes", event.bytes, event.stream)
        self._set_part("unconfirmed_messages", event.stream, event.number, event.unconfirmed)

    def _on_confirmed(self, event: telemetry.Confirmed) -> None:
        self._add("confirmed_messages", event.messages, event.stream, str(event.code))
        self._distributions["confirm_duration_seconds"].observe(event.seconds, (event.stream,))
        self._set_part("unconfirmed_messages", event.stream, event.number, event.unconfirmed)


def _boolean(value: bool) -> str:
    return "true" if value else "false"
