"""The metric catalogue, and the Prometheus registry that is fed by telemetry events.

`CATALOGUE` is the whole truth: every metric with its type, unit, labels and help. Documentation
and dashboards are made from it, and a name that is not in it cannot be counted. `Metrics` is the
`Observer` that turns events into it; it counts per slice, batch, commit or connection, never per
message. What a pipeline's statistics know (fills, offsets, lag) is set when somebody scrapes, by
the callables in `before_scrape`. Labels are bounded: names come from the declaration, and free
values (errors, reasons) fold into "other" after `MAX_VALUES` different ones.

    metrics = Metrics()
    telemetry = Telemetry(metrics)
    ...
    content_type, body = metrics.exposition(accept=request_header)
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from flowstream import __version__, telemetry

PREFIX = "flowstream_"
MAX_VALUES = 50
OTHER = "other"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: `name` is without prefix and without the `_total` of counters."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Prometheus shows it."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")


CATALOGUE: tuple[Metric, ...] = (
    # --- what flows through a pipeline
    Metric(
        "received_messages",
        "counter",
        "messages",
        ("pipeline", "stream"),
        "Messages admitted into the pipeline.",
    ),
    Metric(
        "received_bytes",
        "counter",
        "bytes",
        ("pipeline", "stream"),
        "Bytes of message bodies admitted into the pipeline.",
    ),
    Metric(
        "settled_messages",
        "counter",
        "messages",
        ("pipeline", "stream", "outcome"),
        "Messages settled, by outcome: ok, dropped, dead_lettered, discarded or halted.",
    ),
    Metric(
        "in_flight_messages",
        "gauge",
        "messages",
        ("pipeline",),
        "Messages received and not settled yet, bounded by max_in_flight.",
    ),
    Metric(
        "in_flight_bytes",
        "gauge",
        "bytes",
        ("pipeline",),
        "Bytes of messages received and not settled yet, bounded by max_in_flight_bytes.",
    ),
    Metric(
        "max_in_flight_messages",
        "gauge",
        "messages",
        ("pipeline",),
        "The bound of in_flight_messages.",
    ),
    Metric(
        "progress_age_seconds",
        "gauge",
        "seconds",
        ("pipeline",),
        "Time since a message settled.",
    ),
    Metric(
        "failed_messages",
        "counter",
        "messages",
        ("pipeline", "stage", "phase", "error"),
        "Messages that failed, by phase (decode, process, batch, sink, commit) and error type.",
    ),
    Metric(
        "retried_messages",
        "counter",
        "messages",
        ("pipeline", "stage"),
        "Messages parked for another attempt.",
    ),
    # --- handlers and batches
    Metric(
        "workers",
        "gauge",
        "workers",
        ("pipeline", "stage"),
        "Concurrency of a stage.",
    ),
    Metric(
        "busy_workers",
        "gauge",
        "workers",
        ("pipeline", "stage"),
        "Workers of a stage that are in a handler now.",
    ),
    Metric(
        "waiting_messages",
        "gauge",
        "messages",
        ("pipeline", "stage"),
        "Messages queued before a stage, those in open batches included.",
    ),
    Metric(
        "parked_messages",
        "gauge",
        "messages",
        ("pipeline", "stage"),
        "Messages that wait for another attempt.",
    ),
    Metric(
        "longest_handler_seconds",
        "gauge",
        "seconds",
        ("pipeline", "stage"),
        "How long the handler call that runs longest has been running.",
    ),
    Metric(
        "handler_duration_seconds",
        "histogram",
        "seconds",
        ("pipeline", "stage"),
        "Time in a handler, for a processor's slice or a batcher's batch.",
        _SECONDS,
    ),
    Metric(
        "handled_messages",
        "counter",
        "messages",
        ("pipeline", "stage"),
        "Messages that left a handler, whatever became of them.",
    ),
    Metric(
        "batch_messages",
        "histogram",
        "messages",
        ("pipeline", "batcher"),
        "Messages in a batch when it was closed.",
        _SIZES,
    ),
    Metric(
        "batch_wait_seconds",
        "histogram",
        "seconds",
        ("pipeline", "batcher"),
        "Time from the first message of a batch until the batch was closed.",
        _SECONDS,
    ),
    Metric(
        "batches",
        "counter",
        "batches",
        ("pipeline", "batcher", "trigger"),
        "Batches closed, by what closed them: size, bytes, timeout, flush, drain ...",
    ),
    # --- offsets
    Metric(
        "committed_offset",
        "gauge",
        "offset",
        ("pipeline", "stream"),
        "The last offset sent to be stored: everything up to it is settled.",
    ),
    Metric(
        "commits",
        "counter",
        "commits",
        ("pipeline", "stream", "verified"),
        "Offsets stored; verified is true where the offset was read back (drain, hand-over).",
    ),
    Metric(
        "last_commit_timestamp_seconds",
        "gauge",
        "seconds",
        ("pipeline", "stream"),
        "Unix time of the last commit.",
    ),
    Metric(
        "received_offset",
        "gauge",
        "offset",
        ("pipeline", "stream"),
        "The last offset received.",
    ),
    Metric(
        "settled_offset",
        "gauge",
        "offset",
        ("pipeline", "stream"),
        "The watermark: every message up to it is settled.",
    ),
    Metric(
        "lag_messages",
        "gauge",
        "messages",
        ("pipeline", "stream"),
        "Messages from the watermark to the end of the stream, as far as the broker has told.",
    ),
    Metric(
        "lag_seconds",
        "gauge",
        "seconds",
        ("pipeline", "stream"),
        "Age of the oldest message received and not settled; 0 when there is none.",
    ),
    # --- the run
    Metric(
        "phase",
        "gauge",
        "boolean",
        ("pipeline", "phase"),
        "1 for the phase the run is in (starting, running, paused, draining, stopped), else 0.",
    ),
    Metric(
        "phase_duration_seconds",
        "gauge",
        "seconds",
        ("pipeline", "phase"),
        "How long the phase before this one took.",
    ),
    Metric(
        "stage_crashes",
        "counter",
        "crashes",
        ("pipeline", "stage", "restarted"),
        "Stages that broke outside of a handler, and whether they were restarted.",
    ),
    Metric(
        "stuck_handlers",
        "counter",
        "handlers",
        ("pipeline", "stage"),
        "Handler calls that were reported as stuck, longer than stuck_after.",
    ),
    # --- the client
    Metric(
        "chunks",
        "counter",
        "chunks",
        ("stream",),
        "Chunks delivered by the broker.",
    ),
    Metric(
        "delivered_messages",
        "counter",
        "messages",
        ("stream",),
        "Messages delivered by the broker, before any window or filter.",
    ),
    Metric(
        "delivered_bytes",
        "counter",
        "bytes",
        ("stream",),
        "Bytes of chunks delivered by the broker.",
    ),
    Metric(
        "credits",
        "gauge",
        "chunks",
        ("stream",),
        "Chunks the broker may still send before it waits for more credit.",
    ),
    Metric(
        "published_messages",
        "counter",
        "messages",
        ("stream",),
        "Messages sent to a stream.",
    ),
    Metric(
        "published_bytes",
        "counter",
        "bytes",
        ("stream",),
        "Bytes of message bodies sent to a stream.",
    ),
    Metric(
        "confirmed_messages",
        "counter",
        "messages",
        ("stream", "code"),
        "Messages the broker answered for; code 1 is a confirm, any other a refusal.",
    ),
    Metric(
        "confirm_duration_seconds",
        "histogram",
        "seconds",
        ("stream",),
        "Time from sending to the confirm.",
        _SECONDS,
    ),
    Metric(
        "unconfirmed_messages",
        "gauge",
        "messages",
        ("stream",),
        "Messages sent and not confirmed yet.",
    ),
    Metric(
        "connections",
        "gauge",
        "connections",
        ("role",),
        "Open connections to brokers.",
    ),
    Metric(
        "connections_opened",
        "counter",
        "connections",
        ("role",),
        "Connections opened; more than one of a role is a reconnect or a move.",
    ),
    Metric(
        "connections_lost",
        "counter",
        "connections",
        ("role", "reason"),
        "Connections that ended while they were in use.",
    ),
    # --- the process
    Metric(
        "build_info",
        "gauge",
        "boolean",
        ("version", "python"),
        "Always 1; the labels say which flowstream and Python this is.",
    ),
)


class _Bounded:
    """Lets the first `limit` different values of a label through, and folds the rest."""

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
    """Every metric of `CATALOGUE` in a registry of its own, fed by `observe`.

    `before_scrape` holds callables that bring gauges up to date when somebody looks.
    """

    def __init__(self, catalogue: Sequence[Metric] = CATALOGUE) -> None:
        self.registry = CollectorRegistry()
        self.before_scrape: list[Callable[[Metrics], None]] = []
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in catalogue:
            self._register(metric)
        self._error = _Bounded()
        self._reason = _Bounded()
        self._phases: dict[str, str] = {}
        self._handlers: dict[type[telemetry.Event], Callable[..., None]] = {
            telemetry.Received: self._on_received,
            telemetry.HandlerDone: self._on_handler_done,
            telemetry.BatchReady: self._on_batch_ready,
            telemetry.Settled: self._on_settled,
            telemetry.Failed: self._on_failed,
            telemetry.Retried: self._on_retried,
            telemetry.Committed: self._on_committed,
            telemetry.StageCrashed: self._on_stage_crashed,
            telemetry.HandlerStuck: self._on_handler_stuck,
            telemetry.PhaseChanged: self._on_phase_changed,
            telemetry.ConnectionOpened: self._on_connection_opened,
            telemetry.ConnectionLost: self._on_connection_lost,
            telemetry.ChunkReceived: self._on_chunk_received,
            telemetry.Published: self._on_published,
            telemetry.Confirmed: self._on_confirmed,
        }
        self._gauges["build_info"].labels(__version__, platform.python_version()).set(1)

    def _register(self, metric: Metric) -> None:
        name, labels = PREFIX + metric.name, metric.labels
        if metric.kind == "counter":
            self._counters[metric.name] = Counter(name, metric.help, labels, registry=self.registry)
        elif metric.kind == "gauge":
            self._gauges[metric.name] = Gauge(name, metric.help, labels, registry=self.registry)
        else:
            self._histograms[metric.name] = Histogram(
                name, metric.help, labels, registry=self.registry, buckets=metric.buckets
            )

    def observe(self, event: telemetry.Event) -> None:
        """Count one event; types nobody has a metric for are ignored."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and body for a scrape that accepts `accept`."""
        for refresh in self.before_scrape:
            refresh(self)
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self.registry)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge of the catalogue by its short name."""
        self._gauges[name].labels(*labels).set(value)

    # --- one method per event -------------------------------------------------------------------

    def _add(self, name: str, amount: float, *labels: str) -> None:
        self._counters[name].labels(*labels).inc(amount)

    def _on_received(self, event: telemetry.Received) -> None:
        self._add("received_messages", event.messages, event.pipeline, event.stream)
        self._add("received_bytes", event.bytes, event.pipeline, event.stream)

    def _on_settled(self, event: telemetry.Settled) -> None:
        self._add("settled_messages", event.messages, event.pipeline, event.stream, event.outcome)

    def _on_handler_done(self, event: telemetry.HandlerDone) -> None:
        labels = (event.pipeline, event.stage)
        self._add("handled_messages", event.messages, *labels)
        self._histograms["handler_duration_seconds"].labels(*labels).observe(event.seconds)

    def _on_batch_ready(self, event: telemetry.BatchReady) -> None:
        labels = (event.pipeline, event.batcher)
        self._add("batches", 1, *labels, event.trigger)
        self._histograms["batch_messages"].labels(*labels).observe(event.messages)
        self._histograms["batch_wait_seconds"].labels(*labels).observe(event.waited)

    def _on_failed(self, event: telemetry.Failed) -> None:
        error = self._error(event.error)
        self._add(
            "failed_messages", event.messages, event.pipeline, event.stage, event.phase, error
        )

    def _on_retried(self, event: telemetry.Retried) -> None:
        self._add("retried_messages", event.messages, event.pipeline, event.stage)

    def _on_committed(self, event: telemetry.Committed) -> None:
        labels = (event.pipeline, event.stream)
        self._add("commits", 1, *labels, str(event.verified).lower())
        self.set("committed_offset", event.offset, *labels)
        self.set("last_commit_timestamp_seconds", time.time(), *labels)

    def _on_stage_crashed(self, event: telemetry.StageCrashed) -> None:
        self._add("stage_crashes", 1, event.pipeline, event.stage, str(event.restarted).lower())

    def _on_handler_stuck(self, event: telemetry.HandlerStuck) -> None:
        self._add("stuck_handlers", 1, event.pipeline, event.stage)

    def _on_phase_changed(self, event: telemetry.PhaseChanged) -> None:
        before = self._phases.get(event.pipeline)
        if before is not None:
            self.set("phase", 0, event.pipeline, before)
            self.set("phase_duration_seconds", event.seconds, event.pipeline, before)
        self._phases[event.pipeline] = event.phase
        self.set("phase", 1, event.pipeline, event.phase)

    def _on_connection_opened(self, event: telemetry.ConnectionOpened) -> None:
        self._add("connections_opened", 1, event.role)
        self._gauges["connections"].labels(event.role).inc()

    def _on_connection_lost(self, event: telemetry.ConnectionLost) -> None:
        self._add("connections_lost", 1, event.role, self._reason(event.reason))
        self._gauges["connections"].labels(event.role).dec()

    def _on_chunk_received(self, event: telemetry.ChunkReceived) -> None:
        self._add("chunks", 1, event.stream)
        self._add("delivered_messages", event.messages, event.stream)
        self._add("delivered_bytes", event.bytes, event.stream)
        self.set("credits", event.credits, event.stream)

    def _on_published(self, event: telemetry.Published) -> None:
        self._add("published_messages", event.messages, event.stream)
        self._add("published_bytes", event.bytes, event.stream)
        self.set("unconfirmed_messages", event.unconfirmed, event.stream)

    def _on_confirmed(self, event: telemetry.Confirmed) -> None:
        self._add("confirmed_messages", event.messages, event.stream, str(event.code))
        self._histograms["confirm_duration_seconds"].labels(event.stream).observe(event.seconds)
        self.set("unconfirmed_messages", event.unconfirmed, event.stream)
