"""One pipeline in detail: what flows, what fails, which stage is the limit, how batches close."""

from __future__ import annotations

from grafana.generate.common import INSTANCE, ONE_PIPELINE, panels, share
from grafana.generate.model import Dashboard, Panel, Query, Row, Threshold

_FLOW = Row(
    "Flow",
    (
        Panel(
            "Messages",
            "Received and settled per second. They should lie on each other.",
            (
                Query(panels.rate("received_messages"), "received"),
                Query(panels.rate("settled_messages"), "settled"),
            ),
            "cps",
        ),
        Panel(
            "Settled by outcome",
            "ok; dropped by a handler on purpose; dead_lettered or discarded by the failure "
            "policy.",
            (Query(panels.rate("settled_messages", "outcome"), "{{outcome}}"),),
            "cps",
            stacked=True,
        ),
        Panel(
            "Bytes",
            "Bytes of message bodies admitted per second, by stream.",
            (Query(panels.rate("received_bytes", "stream"), "{{stream}}"),),
            "Bps",
            stacked=True,
        ),
        Panel(
            "Latency",
            "From publishing until settled, as quantiles.",
            (
                Query(panels.quantile(0.5, "latency_seconds"), "half"),
                Query(panels.quantile(0.95, "latency_seconds"), "95 %"),
                Query(panels.quantile(0.99, "latency_seconds"), "99 %"),
            ),
            "s",
        ),
        Panel(
            "In flight",
            "Messages received and not settled, and their bound max_in_flight. At the bound, the "
            "handlers are the limit and the broker is held back.",
            (
                Query(panels.fold("sum", "in_flight_messages", "instance"), "{{instance}}"),
                Query(panels.fold("sum", "max_in_flight_messages", "instance"),
                      "{{instance}} bound"),
            ),
            "short",
        ),
        Panel(
            "Bytes in flight",
            "Bytes received and not settled, and their bound max_in_flight_bytes.",
            (
                Query(panels.fold("sum", "in_flight_bytes", "instance"), "{{instance}}"),
                Query(panels.fold("sum", "max_in_flight_bytes", "instance"), "{{instance}} bound"),
            ),
            "bytes",
        ),
        Panel(
            "Oldest in flight",
            "How long ago the oldest message that is not settled was received. It rises without a "
            "break while one message is stuck: nothing behind it is committed.",
            (Query(panels.fold("max", "oldest_in_flight_seconds", "stream"), "{{stream}}"),),
            "s",
            thresholds=(Threshold(60, "yellow"), Threshold(300, "red")),
        ),
        Panel(
            "Time since a message was settled",
            "Long with messages in flight: the pipeline is stuck. Long with none: nothing arrives.",
            (Query(panels.fold("max", "progress_age_seconds", "instance"), "{{instance}}"),),
            "s",
        ),
        Panel(
            "Given up unsettled",
            "Messages that a halt or the end of a drain left unsettled since the processes "
            "started. The next run replays them.",
            (Query(panels.fold("sum", "held_messages", "stream"), "{{stream}}"),),
            "short",
        ),
    ),
)  # fmt: skip

_FAILURES = Row(
    "Failures",
    (
        Panel(
            "Failed attempts",
            "Attempts per second that failed, tried again or not, by stage, phase and error: the "
            "exception's class, or the reason that a handler gave.",
            (
                Query(
                    panels.rate("failed_attempts", "stage", "phase", "error"),
                    "{{stage}} {{phase}} {{error}}",
                ),
            ),
            "cps",
        ),
        Panel(
            "Failed for good",
            "Messages per second that went to the failure policy, by stage, phase and error.",
            (
                Query(
                    panels.rate("failed_messages", "stage", "phase", "error"),
                    "{{stage}} {{phase}} {{error}}",
                ),
            ),
            "cps",
        ),
        Panel(
            "Retried",
            "Messages per second that failed and are tried again, by stage and error.",
            (Query(panels.rate("retried_messages", "stage", "error"), "{{stage}} {{error}}"),),
            "cps",
        ),
        Panel(
            "Dropped",
            "Messages per second by reason. intentional is true where a handler dropped them, and "
            "false where the policy Drop() discarded failures.",
            (
                Query(
                    panels.rate("dropped_messages", "reason", "intentional"),
                    "{{reason}} (intentional: {{intentional}})",
                ),
            ),
            "cps",
        ),
        Panel(
            "Waiting for the failure policy",
            "Failed messages that are not disposed of yet, such as dead letters that wait for "
            "their confirm.",
            (Query(panels.fold("sum", "disposing_messages", "instance"), "{{instance}}"),),
            "short",
        ),
        Panel(
            "Waiting for another attempt",
            "Messages parked until their retry is due. They count as in flight.",
            (Query(panels.fold("sum", "parked_messages", "stage"), "{{stage}}"),),
            "short",
        ),
        Panel(
            "Broken stages",
            "Stages that broke outside of a handler since the processes started, and whether they "
            "were restarted. A bug of flowstream or of a partition_by function: please report.",
            (
                Query(
                    panels.fold("sum", "stage_crashes", "stage", "restarted"),
                    "{{stage}} (restarted: {{restarted}})",
                ),
            ),
            "short",
        ),
    ),
)

_STAGES = Row(
    "Stages",
    (
        Panel(
            "Busy",
            "Share of its workers' time that a stage spends in handlers. The stage near 100 % is "
            "the limit: give it concurrency, or make its handler faster.",
            (
                Query(
                    share(
                        panels.rate("stage_seconds", "stage", state="busy"),
                        panels.rate("stage_seconds", "stage"),
                    ),
                    "{{stage}}",
                ),
            ),
            "percentunit",
            maximum=1,
            thresholds=(Threshold(0.8, "yellow"), Threshold(0.95, "red")),
        ),
        Panel(
            "Where the producer's time goes",
            "busy: handing messages on; idle: nothing arrives; backpressured: the window is full; "
            "rate_limited and paused: as asked for.",
            (
                Query(
                    panels.rate("stage_seconds", "state", stage="producer"),
                    "{{state}}",
                ),
            ),
            "short",
            stacked=True,
        ),
        Panel(
            "Workers in a handler",
            "Now, and how many there are.",
            (
                Query(panels.fold("sum", "busy_workers", "stage"), "{{stage}}"),
                Query(panels.fold("sum", "workers", "stage"), "{{stage}} in all"),
            ),
            "short",
        ),
        Panel(
            "Handled",
            "Messages that left each stage's handler per second, every attempt counted.",
            (Query(panels.rate("handled_messages", "stage"), "{{stage}}"),),
            "cps",
        ),
        Panel(
            "Waiting",
            "Messages queued before each stage, those in open batches included.",
            (Query(panels.fold("sum", "waiting_messages", "stage"), "{{stage}}"),),
            "short",
        ),
        Panel(
            "Handler's duration, 99th percentile",
            "For a processor's slice, or a batcher's batch.",
            (Query(panels.quantile(0.99, "handler_duration_seconds", "stage"), "{{stage}}"),),
            "s",
        ),
        Panel(
            "Handler's duration, mean",
            "For a processor's slice, or a batcher's batch.",
            (Query(panels.mean("handler_duration_seconds", "stage"), "{{stage}}"),),
            "s",
        ),
        Panel(
            "Longest handler",
            "How long the handler call that runs longest has been running without getting on.",
            (Query(panels.fold("max", "longest_handler_seconds", "stage"), "{{stage}}"),),
            "s",
            thresholds=(Threshold(60, "red"),),
        ),
        Panel(
            "Stuck and hung handlers",
            "Stuck: reported because they took longer than stuck_after, since the processes "
            "started; the log has their stack. Hung: timed out, and their thread still runs.",
            (
                Query(panels.fold("sum", "stuck_handlers", "stage"), "{{stage}} stuck"),
                Query(panels.fold("sum", "hung_handlers", "stage"), "{{stage}} hung"),
            ),
            "short",
        ),
    ),
)

_BATCHES = Row(
    "Batches",
    (
        Panel(
            "Closed by",
            "Batches per second, by what closed them. Mostly timeout: fewer messages arrive than "
            "size; mostly size: they are full.",
            (Query(panels.rate("batches", "batcher", "trigger"), "{{batcher}} {{trigger}}"),),
            "cps",
            stacked=True,
        ),
        Panel(
            "Size",
            "How many messages batches have: the darker, the more batches.",
            (Query(panels.rate("batch_messages_bucket", "le"), "{{le}}"),),
            "short",
            "heatmap",
        ),
        Panel(
            "Mean size",
            "Messages in a batch.",
            (Query(panels.mean("batch_messages", "batcher"), "{{batcher}}"),),
            "short",
        ),
        Panel(
            "Wait, 99th percentile",
            "From the first message of a batch until it was closed; the batcher's timeout bounds "
            "it.",
            (Query(panels.quantile(0.99, "batch_wait_seconds", "batcher"), "{{batcher}}"),),
            "s",
        ),
        Panel(
            "Open",
            "Batches that are being gathered: one for each batch key and partition.",
            (Query(panels.fold("sum", "open_batches", "batcher"), "{{batcher}}"),),
            "short",
        ),
    ),
)

_RUN = Row(
    "Run",
    (
        Panel(
            "Phase",
            "Coloured while a process is in the phase.",
            (
                Query(
                    panels.fold("max", "phase", "instance", "phase"),
                    "{{instance}} {{phase}}",
                ),
            ),
            "short",
            "state-timeline",
            mappings={"0": "no", "1": "yes"},
            thresholds=(Threshold(1, "blue"),),
        ),
        Panel(
            "Ready",
            "The checks of /readyz. Red while one fails.",
            (Query(panels.fold("min", "ready", "instance", "check"), "{{instance}} {{check}}"),),
            "short",
            "state-timeline",
            mappings={"0": "fails", "1": "holds"},
            base="red",
            thresholds=(Threshold(1, "green"),),
        ),
        Panel(
            "Paused",
            "1 while somebody has paused the pipeline.",
            (Query(panels.fold("max", "paused", "instance"), "{{instance}}"),),
            "short",
        ),
        Panel(
            "Rate limit",
            "Messages per second that are let in at most; empty where there is no limit.",
            (
                Query(
                    panels.fold("sum", "rate_limit_messages_per_second", "instance"),
                    "{{instance}}",
                ),
            ),
            "cps",
        ),
    ),
)

PIPELINE = Dashboard(
    "flowstream-pipeline",
    "flowstream: one pipeline",
    "What flows through a pipeline, what fails, which stage is the limit.",
    (ONE_PIPELINE, INSTANCE),
    (_FLOW, _FAILURES, _STAGES, _BATCHES, _RUN),
)
