"""The metric catalogue: every metric with its type, unit, labels and help, as data.

`CATALOGUE` is the whole truth: the registry makes nothing else, documentation and dashboards are
made from it (which panels and alerts use a metric stands in usage.py). Conventions: one prefix,
base units, `_total` on counters, and labels whose values are bounded: pipelines, stages and
streams come from declarations, and free values (errors, reasons) fold into "other".
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
    """One metric: `name` is without prefix and without the `_total` of counters.

    `group` is the part of a run it tells about, `buckets` the upper bounds of a histogram.
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
           "Messages admitted into the pipeline.", "flow"),
    Metric("received_bytes", "counter", "bytes", _PS,
           "Bytes of message bodies admitted into the pipeline.", "flow"),
    Metric("settled_messages", "counter", "messages", (*_PS, "outcome"),
           "Messages settled, by outcome: ok, dropped (by a handler), discarded (by the policy "
           "Drop, or by run --discard) or dead_lettered.", "flow"),
    Metric("dropped_messages", "counter", "messages", (*_PS, "reason", "intentional"),
           "Messages dropped, by reason. intentional is true for message.drop() and run --discard, "
           "and false for failures that the policy Drop discarded.", "flow"),
    Metric("held_messages", "counter", "messages", _PS,
           "Messages given up unsettled, because the run halts or drains: the next run replays "
           "them.", "flow"),
    Metric("failed_attempts", "counter", "attempts", (*_STAGE, "phase", "error"),
           "Failed attempts of messages, tried again or not, by phase (decode, process, batch, "
           "sink, commit) and error: the exception's class, or the reason that a handler gave.",
           "flow"),
    Metric("failed_messages", "counter", "messages", (*_STAGE, "phase", "error"),
           "Messages that failed for good, by phase and error.", "flow"),
    Metric("retried_messages", "counter", "messages", (*_STAGE, "error"),
           "Messages whose attempt failed and that are tried again, by error.", "flow"),
    Metric("latency_seconds", "histogram", "seconds", _PS,
           "Time from publishing (the chunk's timestamp) until a message was settled.", "flow",
           LATENCY),
    Metric("in_flight_messages", "gauge", "messages", _P,
           "Messages received and not settled yet, bounded by max_in_flight.", "flow"),
    Metric("in_flight_bytes", "gauge", "bytes", _P,
           "Bytes of messages received and not settled yet, bounded by max_in_flight_bytes.",
           "flow"),
    Metric("max_in_flight_messages", "gauge", "messages", _P,
           "The bound of in_flight_messages.", "flow"),
    Metric("max_in_flight_bytes", "gauge", "bytes", _P, "The bound of in_flight_bytes.", "flow"),
    Metric("oldest_in_flight_seconds", "gauge", "seconds", _PS,
           "How long ago the oldest message that is not settled was received; 0 when there is "
           "none.", "flow"),
    Metric("progress_age_seconds", "gauge", "seconds", _P,
           "Time since a message was settled; since the start before the first one.", "flow"),
)  # fmt: skip

STAGES: tuple[Metric, ...] = (
    Metric("stage_seconds", "counter", "seconds", (*_STAGE, "state"),
           "Worker time of a stage by state: busy, idle, and for the producer also backpressured "
           "(the window is full), rate_limited and paused. The states of a stage add up to its "
           "workers times the time.", "stages"),
    Metric("workers", "gauge", "workers", _STAGE, "Concurrency of a stage.", "stages"),
    Metric("busy_workers", "gauge", "workers", _STAGE,
           "Workers of a stage that are in a handler now.", "stages"),
    Metric("waiting_messages", "gauge", "messages", _STAGE,
           "Messages queued before a stage, those in open batches included.", "stages"),
    Metric("parked_messages", "gauge", "messages", _STAGE,
           "Messages that wait for another attempt.", "stages"),
    Metric("disposing_messages", "gauge", "messages", _P,
           "Failed messages that wait for the failure policy, such as a dead letter's confirm.",
           "stages"),
    Metric("handled_messages", "counter", "messages", _STAGE,
           "Messages that left a handler, whatever became of them.", "stages"),
    Metric("handler_duration_seconds", "histogram", "seconds", _STAGE,
           "Time in a handler, for a processor's slice or a batcher's batch.", "stages", SECONDS),
    Metric("longest_handler_seconds", "gauge", "seconds", _STAGE,
           "How long the handler call that runs longest has been running without getting on.",
           "stages"),
    Metric("stuck_handlers", "counter", "handlers", _STAGE,
           "Handler calls that were reported as stuck, longer than stuck_after.", "stages"),
    Metric("hung_handlers", "gauge", "handlers", _STAGE,
           "Handler calls that timed out and whose threads could not be ended.", "stages"),
    Metric("stage_crashes", "counter", "crashes", (*_STAGE, "restarted"),
           "Stages that broke outside of a handler, and whether they were restarted.", "stages"),
    Metric("open_batches", "gauge", "batches", _BATCHER,
           "Batches that are being gathered.", "stages"),
    Metric("batches", "counter", "batches", (*_BATCHER, "trigger"),
           "Batches closed, by what closed them: size, bytes, timeout, flush, drain ...",
           "stages"),
    Metric("batch_messages", "histogram", "messages", _BATCHER,
           "Messages in a batch when it was closed.", "stages", SIZES),
    Metric("batch_wait_seconds", "histogram", "seconds", _BATCHER,
           "Time from the first message of a batch until the batch was closed.", "stages",
           SECONDS),
)  # fmt: skip

OFFSETS: tuple[Metric, ...] = (
    Metric("received_offset", "gauge", "offset", _PS, "The last offset received.", "offsets"),
    Metric("settled_offset", "gauge", "offset", _PS,
           "The watermark: every message up to it is settled.", "offsets"),
    Metric("committed_offset", "gauge", "offset", _PS,
           "The last offset sent to be stored: everything up to it is settled.", "offsets"),
    Metric("tail_offset", "gauge", "offset", _PS,
           "The offset of the stream's last message, looked up every 3 seconds.", "offsets"),
    Metric("lag_messages", "gauge", "messages", _PS,
           "Messages behind the watermark, received or not; behind the stored offset where "
           "another process has the partition. Looked up every 3 seconds.", "offsets"),
    Metric("lag_seconds", "gauge", "seconds", _PS,
           "Time since the oldest message that is not settled was published, received or not; 0 "
           "when there is none.", "offsets"),
    Metric("uncommitted_messages", "gauge", "messages", _PS,
           "Offsets from the committed one to the watermark: settled, and replayed after a crash.",
           "offsets"),
    Metric("uncommitted_seconds", "gauge", "seconds", _P,
           "How long settled messages have been waiting for a commit; 0 when none does.",
           "offsets"),
    Metric("commits", "counter", "commits", (*_PS, "result"),
           "Commits by result: sent, verified (read back, on drain and hand-over) or failed.",
           "offsets"),
    Metric("last_commit_timestamp_seconds", "gauge", "seconds", _PS,
           "Unix time of the last commit.", "offsets"),
    Metric("truncated_messages", "counter", "messages", _PS,
           "Offsets that retention removed from the stream before they were handled: lost.",
           "offsets"),
    Metric("foreign_commits", "counter", "looks", _PS,
           "Looks at the stored offset that found one which something else had stored, such as a "
           "second run.", "offsets"),
    Metric("partition_active", "gauge", "boolean", (*_P, "super_stream", "stream"),
           "1 while this process consumes the partition, else 0.", "offsets"),
    Metric("active_partitions", "gauge", "partitions", (*_P, "super_stream"),
           "Partitions that this process consumes.", "offsets"),
    Metric("partition_moves", "counter", "moves", (*_P, "super_stream", "direction"),
           "Partitions that came to this process (gained) or went to another (lost).", "offsets"),
    Metric("hand_over_duration_seconds", "histogram", "seconds", (*_P, "super_stream"),
           "Time from being asked for a partition until it was drained and committed.", "offsets",
           SECONDS),
)  # fmt: skip

RUN: tuple[Metric, ...] = (
    Metric("phase", "gauge", "boolean", (*_P, "phase"),
           "1 for the phase the run is in (starting, running, draining, closing, stopped), else "
           "0.", "run"),
    Metric("paused", "gauge", "boolean", _P, "1 while the pipeline is paused, else 0.", "run"),
    Metric("start_timestamp_seconds", "gauge", "seconds", _P,
           "Unix time at which the run began; it changes with every restart.", "run"),
    Metric("ready", "gauge", "boolean", (*_P, "check"),
           "1 where a check of /readyz holds, 0 where it fails.", "run"),
    Metric("rate_limit_messages_per_second", "gauge", "messages/second", _P,
           "The rate limit in force; no value when there is none.", "run"),
)  # fmt: skip

CLIENT: tuple[Metric, ...] = (
    Metric("chunks", "counter", "chunks", ("stream",), "Chunks delivered by the broker.", "client"),
    Metric("delivered_messages", "counter", "messages", ("stream",),
           "Messages delivered by the broker, before any window or filter.", "client"),
    Metric("delivered_bytes", "counter", "bytes", ("stream",),
           "Bytes of chunks delivered by the broker.", "client"),
    Metric("credits", "gauge", "chunks", ("stream",),
           "Chunks the broker may still send before it waits for more credit.", "client"),
    Metric("buffered_bytes", "gauge", "bytes", ("stream",),
           "Bytes of chunks that were delivered and not handed to the pipeline yet.", "client"),
    Metric("overtaken_messages", "counter", "messages", ("stream",),
           "Offsets that retention removed before a consumer had read them: lost to it.", "client"),
    Metric("retention_headroom_messages", "gauge", "messages", ("stream",),
           "Offsets that the stream still has before what a consumer goes on with, "
           "looked up every 5 seconds (every 30 below RabbitMQ 3.11). Retention comes near as it "
           "falls to 0; below 0 it has removed what is not settled.", "client"),
    Metric("published_messages", "counter", "messages", ("stream",),
           "Messages sent to a stream.", "client"),
    Metric("published_bytes", "counter", "bytes", ("stream",),
           "Bytes of message bodies sent to a stream.", "client"),
    Metric("confirmed_messages", "counter", "messages", ("stream", "code"),
           "Messages the broker answered for; code 1 is a confirm, any other a refusal, 0 no "
           "answer in time.", "client"),
    Metric("confirm_duration_seconds", "histogram", "seconds", ("stream",),
           "Time from accepting the oldest message of a confirm until the confirm.", "client",
           SECONDS),
    Metric("unconfirmed_messages", "gauge", "messages", ("stream",),
           "Messages accepted for publishing and not confirmed yet.", "client"),
    Metric("connections", "gauge", "connections", ("role",),
           "Open connections to brokers, by role: locating, tracking, publishing, consuming.",
           "client"),
    Metric("connections_opened", "counter", "connections", ("role",),
           "Connections opened; more than one of a role is a reconnect or a move.", "client"),
    Metric("connections_lost", "counter", "connections", ("role", "reason"),
           "Connections that ended while they were in use, by reason: broker (it said goodbye), "
           "network, heartbeat, protocol, handshake or silent (requests were not answered).",
           "client"),
    Metric("recovering", "gauge", "boolean", ("kind", "name"),
           "1 while an environment, publisher or consumer (kind) is without its broker and tries "
           "again, else 0; name is the stream's, or the environment's.", "client"),
    Metric("recoveries", "counter", "recoveries", ("kind", "name"),
           "Times that an environment, publisher or consumer lost its broker and was recovered.",
           "client"),
    Metric("recovery_duration_seconds", "histogram", "seconds", ("kind",),
           "Time without the broker until recovered.", "client", SECONDS),
)  # fmt: skip

PROCESS: tuple[Metric, ...] = (
    Metric("event_loop_lag_seconds", "histogram", "seconds", (),
           "How late the event loop woke a timer, sampled four times a second.", "process",
           SECONDS),
    Metric("build_info", "gauge", "boolean", ("version", "python"),
           "Always 1; the labels say which flowstream and Python this is.", "process"),
)  # fmt: skip

CATALOGUE: tuple[Metric, ...] = (*FLOW, *STAGES, *OFFSETS, *RUN, *CLIENT, *PROCESS)
