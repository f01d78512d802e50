"""The metric catalogue: every metric with its type, unit, labels and help text, as data.

`Metrics` exposes exactly these, and the dashboards, alerts and docs/metrics.md are generated from
them (`make dashboards`). The conventions are those of Prometheus: one prefix, base units, and
`_total` on counters. The values of every label are bounded: pipelines, stages and streams come
from declarations, and of free values (errors, reasons) only the first 50 are kept; see registry.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

PREFIX = "flowstream_"

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600)
SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Group: TypeAlias = Literal["flow", "stages", "offsets", "run", "client", "process"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` has neither the prefix nor the `_total` of a counter.

    `group` is the part of a run that it belongs to; `buckets` are the upper bounds of a histogram.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    group: Group
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Prometheus shows it."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")


_P = ("pipeline",)
_PS = ("pipeline", "stream")
_STAGE = ("pipeline", "stage")
_BATCHER = ("pipeline", "batcher")

FLOW: tuple[Metric, ...] = (
    Metric("received_messages", "counter", "messages", _PS,
           "Messages that the pipeline received.", "flow"),
    Metric("received_bytes", "counter", "bytes", _PS,
           "Bytes of the message bodies that the pipeline received.", "flow"),
    Metric("settled_messages", "counter", "messages", (*_PS, "outcome"),
           "Messages settled, by outcome: ok, dropped (by a handler), discarded (by the policy "
           "Drop, or by run --discard) or dead_lettered.", "flow"),
    Metric("dropped_messages", "counter", "messages", (*_PS, "reason", "intentional"),
           "Messages dropped, by reason. intentional is true for message.drop() and run --discard, "
           "and false for failures that the policy Drop discarded.", "flow"),
    Metric("abandoned_messages", "counter", "messages", _PS,
           "Messages abandoned without being settled, because the run halted or its drain ended. "
           "The next run processes them again.", "flow"),
    Metric("failed_attempts", "counter", "attempts", (*_STAGE, "phase", "error"),
           "Failed attempts to process a message, retried or not, by phase (decode, prepare, "
           "process, batch, sink, commit) and error: the class of the exception, or the reason "
           "that a handler gave.", "flow"),
    Metric("failed_messages", "counter", "messages", (*_STAGE, "phase", "error"),
           "Messages that failed and were passed to the failure policy, by phase and error.",
           "flow"),
    Metric("retried_messages", "counter", "messages", (*_STAGE, "error"),
           "Retries scheduled for messages whose attempt failed, by error.", "flow"),
    Metric("latency_seconds", "histogram", "seconds", _PS,
           "Time from publishing a message (the timestamp of its chunk) until it was settled.",
           "flow", LATENCY),
    Metric("in_flight_messages", "gauge", "messages", _P,
           "Messages received and not settled yet; max_in_flight is the limit.", "flow"),
    Metric("in_flight_bytes", "gauge", "bytes", _P,
           "Bytes of the messages received and not settled yet; max_in_flight_bytes is the limit.",
           "flow"),
    Metric("max_in_flight_messages", "gauge", "messages", _P,
           "The limit of in_flight_messages.", "flow"),
    Metric("max_in_flight_bytes", "gauge", "bytes", _P, "The limit of in_flight_bytes.", "flow"),
    Metric("oldest_in_flight_seconds", "gauge", "seconds", _PS,
           "Time since the oldest unsettled message was received; 0 without such a message.",
           "flow"),
    Metric("progress_age_seconds", "gauge", "seconds", _P,
           "Time since a message was last settled; since the start of the run before the first.",
           "flow"),
)  # fmt: skip

STAGES: tuple[Metric, ...] = (
    Metric("stage_seconds", "counter", "seconds", (*_STAGE, "state"),
           "Time of a stage's workers by state: busy or idle, and for the producer also "
           "backpressured (the in-flight window is full), rate_limited and paused. The states "
           "add up to the run time multiplied by the number of workers.", "stages"),
    Metric("workers", "gauge", "workers", _STAGE, "Workers of a stage (its concurrency).",
           "stages"),
    Metric("busy_workers", "gauge", "workers", _STAGE,
           "Workers of a stage that are running a handler.", "stages"),
    Metric("waiting_messages", "gauge", "messages", _STAGE,
           "Messages queued for a stage, including those in open batches.", "stages"),
    Metric("parked_messages", "gauge", "messages", _STAGE,
           "Messages that wait for a retry.", "stages"),
    Metric("awaiting_policy_messages", "gauge", "messages", _P,
           "Failed messages that the failure policy has not settled yet, such as dead letters "
           "that are not confirmed.", "stages"),
    Metric("handled_messages", "counter", "messages", _STAGE,
           "Messages that a handler returned from, with any result.", "stages"),
    Metric("handler_duration_seconds", "histogram", "seconds", _STAGE,
           "Duration of a handler call: of a slice in a processor, of a batch in a batcher.",
           "stages", SECONDS),
    Metric("longest_handler_seconds", "gauge", "seconds", _STAGE,
           "Time that the longest running handler call has spent without progress.", "stages"),
    Metric("stuck_handlers", "counter", "handlers", _STAGE,
           "Handler calls reported as stuck: they ran longer than stuck_after.", "stages"),
    Metric("hung_handlers", "gauge", "handlers", _STAGE,
           "Handler calls that timed out and whose threads still run.", "stages"),
    Metric("stage_crashes", "counter", "crashes", (*_STAGE, "restarted"),
           "Crashes of a stage outside of a handler, and whether the stage was restarted.",
           "stages"),
    Metric("open_batches", "gauge", "batches", _BATCHER,
           "Batches that are being filled.", "stages"),
    Metric("held_messages", "gauge", "messages", _BATCHER,
           "Messages for a sink that writes exactly once, which wait for messages before them.",
           "stages"),
    Metric("batches", "counter", "batches", (*_BATCHER, "trigger"),
           "Batches closed, by what closed them: size, bytes, timeout, flush, drain ...",
           "stages"),
    Metric("batch_messages", "histogram", "messages", _BATCHER,
           "Messages in a closed batch.", "stages", SIZES),
    Metric("batch_wait_seconds", "histogram", "seconds", _BATCHER,
           "Time from the first message of a batch until the batch was closed.", "stages",
           SECONDS),
)  # fmt: skip

OFFSETS: tuple[Metric, ...] = (
    Metric("received_offset", "gauge", "offset", _PS, "The last offset received.", "offsets"),
    Metric("settled_offset", "gauge", "offset", _PS,
           "The watermark: every message up to this offset is settled.", "offsets"),
    Metric("committed_offset", "gauge", "offset", _PS,
           "The last offset sent to the broker for storing.", "offsets"),
    Metric("tail_offset", "gauge", "offset", _PS,
           "The offset of the last message in the stream, looked up every 3 seconds.", "offsets"),
    Metric("lag_messages", "gauge", "messages", _PS,
           "Messages behind the watermark, received or not; behind the stored offset if another "
           "process reads the partition. Looked up every 3 seconds.", "offsets"),
    Metric("lag_seconds", "gauge", "seconds", _PS,
           "Time since the oldest unsettled message was published, received or not; 0 without "
           "such a message.", "offsets"),
    Metric("uncommitted_messages", "gauge", "messages", _PS,
           "Offsets between the committed one and the watermark: settled messages that a crash "
           "would repeat.", "offsets"),
    Metric("uncommitted_seconds", "gauge", "seconds", _P,
           "Time that settled messages have been waiting for a commit; 0 without such messages.",
           "offsets"),
    Metric("commits", "counter", "commits", (*_PS, "result"),
           "Commits by result: sent, verified (read back, on a drain or hand-over) or failed.",
           "offsets"),
    Metric("last_commit_timestamp_seconds", "gauge", "seconds", _PS,
           "Unix time of the last commit.", "offsets"),
    Metric("truncated_messages", "counter", "messages", _PS,
           "Offsets that retention removed before the pipeline processed them: lost messages.",
           "offsets"),
    Metric("foreign_commits", "counter", "checks", _PS,
           "Checks of the stored offset that found one of another writer, such as a second run.",
           "offsets"),
    Metric("partition_active", "gauge", "boolean", (*_P, "super_stream", "stream"),
           "1 while this process consumes the partition, else 0.", "offsets"),
    Metric("active_partitions", "gauge", "partitions", (*_P, "super_stream"),
           "Partitions that this process consumes.", "offsets"),
    Metric("partition_moves", "counter", "moves", (*_P, "super_stream", "direction"),
           "Partitions that this process gained, or lost to another process.", "offsets"),
    Metric("rebalances", "counter", "rebalances", (*_P, "super_stream"),
           "Times that this process subscribed again, because its parent had found the load of the "
           "workers uneven.", "offsets"),
    Metric("hand_over_duration_seconds", "histogram", "seconds", (*_P, "super_stream"),
           "Time from the broker's request for a partition until it was drained and committed.",
           "offsets", SECONDS),
)  # fmt: skip

RUN: tuple[Metric, ...] = (
    Metric("phase", "gauge", "boolean", (*_P, "phase"),
           "1 for the current phase of the run (starting, running, draining, closing, stopped), "
           "else 0.", "run"),
    Metric("paused", "gauge", "boolean", _P, "1 while the pipeline is paused, else 0.", "run"),
    Metric("start_timestamp_seconds", "gauge", "seconds", _P,
           "Unix time at which the run started; it changes with every restart.", "run"),
    Metric("ready", "gauge", "boolean", (*_P, "check"),
           "1 if a check of /readyz passes, 0 if it fails.", "run"),
    Metric("rate_limit_messages_per_second", "gauge", "messages/second", _P,
           "The rate limit in force; no value without a limit.", "run"),
)  # fmt: skip

CLIENT: tuple[Metric, ...] = (
    Metric("chunks", "counter", "chunks", ("stream",), "Chunks that the broker delivered.",
           "client"),
    Metric("delivered_messages", "counter", "messages", ("stream",),
           "Messages that the broker delivered, before any filter of the client.", "client"),
    Metric("delivered_bytes", "counter", "bytes", ("stream",),
           "Bytes of the chunks that the broker delivered.", "client"),
    Metric("credits", "gauge", "chunks", ("stream",),
           "Chunks that the broker may send before it needs more credit; the sum of all consumers "
           "of the stream in the process.", "client"),
    Metric("buffered_bytes", "gauge", "bytes", ("stream",),
           "Bytes of chunks that were delivered and not passed to the pipeline yet; the sum of all "
           "consumers of the stream in the process.", "client"),
    Metric("overtaken_messages", "counter", "messages", ("stream",),
           "Offsets that retention removed before a consumer read them: lost to this consumer.",
           "client"),
    Metric("retention_headroom_messages", "gauge", "messages", ("stream",),
           "Offsets between the first one of the stream and the next one that a consumer needs (of "
           "several, the one that is most behind), looked up every 5 seconds (every 30 below "
           "RabbitMQ 3.11). As it approaches 0, retention is about to remove unread messages; "
           "below 0 it has removed unsettled ones.", "client"),
    Metric("published_messages", "counter", "messages", ("stream",),
           "Messages sent to a stream.", "client"),
    Metric("published_bytes", "counter", "bytes", ("stream",),
           "Bytes of the message bodies sent to a stream.", "client"),
    Metric("confirmed_messages", "counter", "messages", ("stream", "code"),
           "Published messages by response code: 1 is a confirm, 0 no response in time, and any "
           "other a refusal.", "client"),
    Metric("confirm_duration_seconds", "histogram", "seconds", ("stream",),
           "Time from accepting the oldest message of a confirm until the confirm arrived.",
           "client", SECONDS),
    Metric("unconfirmed_messages", "gauge", "messages", ("stream",),
           "Messages accepted for publishing and not confirmed yet; the sum of all publishers of "
           "the stream in the process.", "client"),
    Metric("connections", "gauge", "connections", ("role",),
           "Open connections to brokers, by role: locating, tracking, publishing, consuming.",
           "client"),
    Metric("connections_opened", "counter", "connections", ("role",),
           "Connections opened. More than one for a role is a reconnect or a move to another "
           "node.", "client"),
    Metric("connections_lost", "counter", "connections", ("role", "reason"),
           "Connections that ended while they were in use, by reason: broker (it closed the "
           "connection), network, heartbeat, protocol, handshake or silent (requests were not "
           "answered).", "client"),
    Metric("recovering", "gauge", "boolean", ("kind", "name"),
           "1 while an environment, publisher or consumer (kind) reconnects, else 0; name is the "
           "name of the stream or of the environment. Of several with one name, any.", "client"),
    Metric("recoveries", "counter", "recoveries", ("kind", "name"),
           "Times that an environment, publisher or consumer reconnected after a lost "
           "connection.", "client"),
    Metric("recovery_duration_seconds", "histogram", "seconds", ("kind",),
           "Time from a lost connection until everything on it was recovered.", "client", SECONDS),
)  # fmt: skip

PROCESS: tuple[Metric, ...] = (
    Metric("event_loop_lag_seconds", "histogram", "seconds", (),
           "Delay of a timer on the event loop, sampled four times a second.", "process",
           SECONDS),
    Metric("build_info", "gauge", "boolean", ("version", "python"),
           "Always 1; the labels are the versions of flowstream and Python.", "process"),
)  # fmt: skip

CATALOGUE: tuple[Metric, ...] = (*FLOW, *STAGES, *OFFSETS, *RUN, *CLIENT, *PROCESS)
