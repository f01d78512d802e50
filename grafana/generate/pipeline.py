"""Dashboard of one pipeline: throughput, failures, stages, batches, and the run."""

from __future__ import annotations

from grafana.generate.common import INSTANCE, ONE_PIPELINE, panels, share
from grafana.generate.model import Dashboard, Panel, Query, Row, Threshold
from grafana.generate.promql import NAMED, PROCESS

_FLOW = Row(
    "Flow",
    (
        Panel(
            "Messages",
            "Messages received and settled per second. The two lines should match.",
            (
                Query(panels.rate("received_messages"), "received"),
                Query(panels.rate("settled_messages"), "settled"),
            ),
            "cps",
        ),
        Panel(
            "Settled by outcome",
            "Messages per second by outcome: ok; dropped by a handler; dead_lettered or discarded "
            "by the failure policy.",
            (Query(panels.rate("settled_messages", "outcome"), "{{outcome}}"),),
            "cps",
            stacked=True,
        ),
        Panel(
            "Bytes",
            "Bytes of message bodies received per second, by stream.",
            (Query(panels.rate("received_bytes", "stream"), "{{stream}}"),),
            "Bps",
            stacked=True,
        ),
        Panel(
            "Latency",
            "Time from publishing until settled, as quantiles.",
            (
                Query(panels.quantile(0.5, "latency_seconds"), "median"),
                Query(panels.quantile(0.95, "latency_seconds"), "95 %"),
                Query(panels.quantile(0.99, "latency_seconds"), "99 %"),
            ),
            "s",
        ),
        Panel(
            "In flight",
            "Messages received and not settled, and their limit max_in_flight. At the limit, the "
            "handlers are the bottleneck and no more messages are requested from the broker.",
            (
                Query(panels.fold("sum", "in_flight_messages", *PROCESS), NAMED),
                Query(panels.fold("sum", "max_in_flight_messages", *PROCESS),
                      "{{instance}} {{worker}} limit"),
            ),
            "short",
        ),
        Panel(
            "Bytes in flight",
            "Bytes received and not settled, and their limit max_in_flight_bytes.",
            (
                Query(panels.fold("sum", "in_flight_bytes", *PROCESS), NAMED),
                Query(panels.fold("sum", "max_in_flight_bytes", *PROCESS),
                      "{{instance}} {{worker}} limit"),
            ),
            "bytes",
        ),
        Panel(
            "Oldest in flight",
            "Time since the oldest unsettled message was received. It rises steadily while a "
            "message is stuck; no offset behind that message is committed.",
            (Query(panels.fold("max", "oldest_in_flight_seconds", "stream"), "{{stream}}"),),
            "s",
            thresholds=(Threshold(60, "yellow"), Threshold(300, "red")),
        ),
        Panel(
            "Time since the last settled message",
            "If it is long and messages are in flight, the pipeline is stuck. If it is long and "
            "none are, no messages arrive.",
            (Query(panels.fold("max", "progress_age_seconds", *PROCESS), NAMED),),
            "s",
        ),
        Panel(
            "Abandoned",
            "Messages that a halt or the end of a drain left unsettled, since the processes "
            "started. The next run processes them again.",
            (Query(panels.fold("sum", "abandoned_messages", "stream"), "{{stream}}"),),
            "short",
        ),
    ),
)  # fmt: skip

_FAILURES = Row(
    "Failures",
    (
        Panel(
            "Failed attempts",
            "Failed attempts per second, retried or not, by stage, phase and error: the class of "
            "the exception, or the reason that a handler gave.",
            (
                Query(
                    panels.rate("failed_attempts", "stage", "phase", "error"),
                    "{{stage}} {{phase}} {{error}}",
                ),
            ),
            "cps",
        ),
        Panel(
            "Failed permanently",
            "Messages per second that were passed to the failure policy, by stage, phase and "
            "error.",
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
            "Retries scheduled per second, by stage and error.",
            (Query(panels.rate("retried_messages", "stage", "error"), "{{stage}} {{error}}"),),
            "cps",
        ),
        Panel(
            "Dropped",
            "Messages dropped per second, by reason. intentional is true if a handler dropped "
            "them, and false if the policy Drop() discarded failures.",
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
            "Failed messages that the failure policy has not settled yet, such as dead letters "
            "that are not confirmed.",
            (
                Query(
                    panels.fold("sum", "awaiting_policy_messages", *PROCESS),
                    NAMED,
                ),
            ),
            "short",
        ),
        Panel(
            "Waiting for a retry",
            "Messages that wait until their retry is due. They count as in flight.",
            (Query(panels.fold("sum", "parked_messages", "stage"), "{{stage}}"),),
            "short",
        ),
        Panel(
            "Stage crashes",
            "Crashes of stages outside of a handler, since the processes started, and whether the "
            "stage was restarted. The cause is a function of the declaration (such as "
            "partition_by) or a bug of flowstream: please report the latter.",
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
            "Share of its workers' time that a stage spends in handlers. A stage near 100 % is "
            "the bottleneck: raise its concurrency, or make its handler faster.",
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
            "Producer time by state",
            "busy: it passes messages on. idle: no messages arrive. backpressured: the in-flight "
            "window is full. rate_limited and paused: somebody limited or paused the pipeline.",
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
            "Busy workers",
            "Workers that are running a handler, and all workers of the stage.",
            (
                Query(panels.fold("sum", "busy_workers", "stage"), "{{stage}}"),
                Query(panels.fold("sum", "workers", "stage"), "{{stage}} total"),
            ),
            "short",
        ),
        Panel(
            "Handled",
            "Messages per second that the handler of each stage returned from, counting every "
            "attempt.",
            (Query(panels.rate("handled_messages", "stage"), "{{stage}}"),),
            "cps",
        ),
        Panel(
            "Waiting",
            "Messages queued for each stage, including those in open batches.",
            (Query(panels.fold("sum", "waiting_messages", "stage"), "{{stage}}"),),
            "short",
        ),
        Panel(
            "Handler duration, 99th percentile",
            "Duration of a handler call: of a slice in a processor, of a batch in a batcher.",
            (Query(panels.quantile(0.99, "handler_duration_seconds", "stage"), "{{stage}}"),),
            "s",
        ),
        Panel(
            "Handler duration, mean",
            "Duration of a handler call: of a slice in a processor, of a batch in a batcher.",
            (Query(panels.mean("handler_duration_seconds", "stage"), "{{stage}}"),),
            "s",
        ),
        Panel(
            "Longest handler",
            "Time that the longest running handler call has spent without progress.",
            (Query(panels.fold("max", "longest_handler_seconds", "stage"), "{{stage}}"),),
            "s",
            thresholds=(Threshold(60, "red"),),
        ),
        Panel(
            "Stuck and hung handlers",
            "Stuck: calls reported since the processes started because they ran longer than "
            "stuck_after; the log has their stack. Hung: calls that timed out and whose threads "
            "still run.",
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
            "Batches closed",
            "Batches closed per second, by what closed them. Mostly size: batches are full. "
            "Mostly timeout: fewer than size messages arrive within batch_timeout.",
            (Query(panels.rate("batches", "batcher", "trigger"), "{{batcher}} {{trigger}}"),),
            "cps",
            stacked=True,
        ),
        Panel(
            "Batch size",
            "Distribution of the number of messages in a batch: darker means more batches.",
            (Query(panels.rate("batch_messages_bucket", "le"), "{{le}}"),),
            "short",
            "heatmap",
        ),
        Panel(
            "Batch size, mean",
            "Mean number of messages in a batch.",
            (Query(panels.mean("batch_messages", "batcher"), "{{batcher}}"),),
            "short",
        ),
        Panel(
            "Batch wait, 99th percentile",
            "Time from the first message of a batch until the batch was closed. Its limit is "
            "batch_timeout.",
            (Query(panels.quantile(0.99, "batch_wait_seconds", "batcher"), "{{batcher}}"),),
            "s",
        ),
        Panel(
            "Open batches",
            "Batches that are being filled: one per batch key and partition.",
            (Query(panels.fold("sum", "open_batches", "batcher"), "{{batcher}}"),),
            "short",
        ),
        Panel(
            "Held messages",
            "Messages for a sink that writes exactly once, which wait for messages before them.",
            (Query(panels.fold("sum", "held_messages", "batcher"), "{{batcher}}"),),
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
                    panels.fold("max", "phase", *PROCESS, "phase"),
                    "{{instance}} {{worker}} {{phase}}",
                ),
            ),
            "short",
            "state-timeline",
            mappings={"0": "no", "1": "yes"},
            thresholds=(Threshold(1, "blue"),),
        ),
        Panel(
            "Ready",
            "The checks of /readyz. Red while a check fails.",
            (
                Query(
                    panels.fold("min", "ready", *PROCESS, "check"),
                    "{{instance}} {{worker}} {{check}}",
                ),
            ),
            "short",
            "state-timeline",
            mappings={"0": "fails", "1": "passes"},
            base="red",
            thresholds=(Threshold(1, "green"),),
        ),
        Panel(
            "Paused",
            "1 while the pipeline is paused.",
            (Query(panels.fold("max", "paused", *PROCESS), NAMED),),
            "short",
        ),
        Panel(
            "Rate limit",
            "The most messages that the pipeline receives per second; empty without a limit.",
            (
                Query(
                    panels.fold("sum", "rate_limit_messages_per_second", *PROCESS),
                    NAMED,
                ),
            ),
            "cps",
        ),
    ),
)

PIPELINE = Dashboard(
    "flowstream-pipeline",
    "flowstream: one pipeline",
    "Throughput and failures of one pipeline, and which stage is the bottleneck.",
    (ONE_PIPELINE, INSTANCE),
    (_FLOW, _FAILURES, _STAGES, _BATCHES, _RUN),
)
