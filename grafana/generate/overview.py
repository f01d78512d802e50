"""Dashboard of all pipelines on one screen: which one needs attention."""

from __future__ import annotations

from grafana.generate.common import (
    FAILING,
    INSTANCE,
    LATE,
    PIPELINES,
    SHARE_FAILING,
    lag_messages,
    panels,
    share,
)
from grafana.generate.model import Dashboard, Panel, Query, Row, Threshold
from grafana.generate.promql import PROCESS, fold

_COMMIT_AGE = f"time() - {panels.fold('max', 'last_commit_timestamp_seconds', 'pipeline')}"
_SHARE_FAILING = share(
    panels.rate("settled_messages", "pipeline", outcome=FAILING),
    panels.rate("settled_messages", "pipeline"),
)

_STATE = Row(
    "Status",
    (
        Panel(
            "Pipelines running",
            "Pipelines with at least one process in the phase running. If there are fewer than "
            "you started, look for one that halted, drains or cannot start.",
            (Query(fold("sum", panels.fold("max", "phase", "pipeline", phase="running"))),),
            "short",
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Messages behind",
            "Messages in the streams that are not settled yet, for all pipelines.",
            (Query(fold("sum", lag_messages(panels))),),
            "short",
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Time behind",
            "Time since the oldest unsettled message was published, for the pipeline that is "
            "furthest behind.",
            (Query(panels.fold("max", "lag_seconds")),),
            "s",
            "stat",
            width=4,
            height=4,
            thresholds=LATE,
        ),
        Panel(
            "Settled per second",
            "Messages settled per second with any outcome, for all pipelines.",
            (Query(panels.rate("settled_messages")),),
            "short",
            "stat",
            width=4,
            height=4,
            decimals=1,
        ),
        Panel(
            "Failing",
            "Share of the settled messages that were dead-lettered or discarded.",
            (
                Query(
                    share(
                        panels.rate("settled_messages", outcome=FAILING),
                        panels.rate("settled_messages"),
                    )
                ),
            ),
            "percentunit",
            "stat",
            width=4,
            height=4,
            thresholds=SHARE_FAILING,
            decimals=2,
        ),
        Panel(
            "Alerts firing",
            "Firing alerts of flowstream. The annotations of each alert link to its runbook.",
            (
                Query(
                    'count(ALERTS{alertname=~"Flowstream.+",alertstate="firing"}) or vector(0)'
                ),
            ),
            "short",
            "stat",
            width=4,
            height=4,
            thresholds=(Threshold(1, "red"),),
        ),
        Panel(
            "Pipelines",
            "One line per pipeline. Not ready: the number of failing checks of /readyz. Window: "
            "the share of max_in_flight in use; when it is full, the handlers are the bottleneck. "
            "Commit age: the time since the last commit on any of its streams.",
            (
                Query(panels.fold("count", "start_timestamp_seconds", "pipeline"),
                      column="Processes"),
                Query(f"{panels.fold('count', 'ready', 'pipeline')}\n-\n"
                      f"{panels.fold('sum', 'ready', 'pipeline')}", column="Not ready"),
                Query(panels.rate("received_messages", "pipeline"), column="Received/s"),
                Query(panels.rate("settled_messages", "pipeline"), column="Settled/s"),
                Query(lag_messages(panels, "pipeline"), column="Messages behind"),
                Query(panels.fold("max", "lag_seconds", "pipeline"), column="Time behind"),
                Query(share(panels.fold("sum", "in_flight_messages", "pipeline"),
                            panels.fold("sum", "max_in_flight_messages", "pipeline")),
                      column="Window"),
                Query(_SHARE_FAILING, column="Failing"),
                Query(_COMMIT_AGE, column="Commit age"),
            ),
            "short",
            "table",
            width=24,
            decimals=1,
            units={"Time behind": "s", "Window": "percentunit", "Failing": "percentunit",
                   "Commit age": "s"},
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
    ),
)  # fmt: skip

_FLOW = Row(
    "Throughput and lag",
    (
        Panel(
            "Received",
            "Messages that each pipeline receives per second. If this is 0 while there is a lag, "
            "the cause is back-pressure, a lost connection or a pause.",
            (Query(panels.rate("received_messages", "pipeline"), "{{pipeline}}"),),
            "cps",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Settled",
            "Messages settled per second with any outcome. While this stays below the received "
            "rate, the number of messages in flight grows.",
            (Query(panels.rate("settled_messages", "pipeline"), "{{pipeline}}"),),
            "cps",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Messages behind, by pipeline",
            "Messages in the streams that are not settled yet. If it keeps rising, the pipeline "
            "needs more concurrency, more processes or a faster handler.",
            (Query(lag_messages(panels, "pipeline"), "{{pipeline}}"),),
            "short",
            drill_down="flowstream-partitions",
            passing=("pipeline",),
        ),
        Panel(
            "Time behind, by pipeline",
            "Time since the oldest unsettled message was published: the results of the pipeline "
            "are missing data of up to this age.",
            (Query(panels.fold("max", "lag_seconds", "pipeline"), "{{pipeline}}"),),
            "s",
            thresholds=LATE,
            drill_down="flowstream-partitions",
            passing=("pipeline",),
        ),
        Panel(
            "Latency, 99th percentile",
            "Time from publishing until settled that 99 of 100 messages stayed below. If it is "
            "high without a lag, batches wait to be filled or the handler is slow.",
            (Query(panels.quantile(0.99, "latency_seconds", "pipeline"), "{{pipeline}}"),),
            "s",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Failing, by pipeline",
            "Share of the settled messages that were dead-lettered or discarded.",
            (Query(_SHARE_FAILING, "{{pipeline}}"),),
            "percentunit",
            thresholds=SHARE_FAILING,
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
    ),
)

_TROUBLE = Row(
    "Problems",
    (
        Panel(
            "Failed messages",
            "Messages per second that failed and were passed to the failure policy, by pipeline "
            "and phase. decode: the payload does not match the annotation of the handler. process "
            "and batch: a handler failed. sink: publishing failed.",
            (Query(panels.rate("failed_messages", "pipeline", "phase"), "{{pipeline}} {{phase}}"),),
            "cps",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Disconnected",
            "Environments, publishers and consumers that lost their connection to the broker and "
            "are reconnecting.",
            (
                Query(
                    panels.fold("sum", "recovering", *PROCESS, "kind"),
                    "{{instance}} {{worker}} {{kind}}",
                ),
            ),
            "short",
            thresholds=(Threshold(1, "red"),),
            drill_down="flowstream-runtime",
            passing=("instance",),
        ),
        Panel(
            "Age of the run",
            "Time since each run started. Drops to 0 are restarts.",
            (
                Query(
                    "time() - "
                    + panels.fold("max", "start_timestamp_seconds", "pipeline", *PROCESS),
                    "{{pipeline}} {{instance}} {{worker}}",
                ),
            ),
            "s",
            drill_down="flowstream-runtime",
            passing=("instance",),
        ),
    ),
)

OVERVIEW = Dashboard(
    "flowstream-overview",
    "flowstream: overview",
    "All pipelines at a glance: throughput and lag, failures and commits.",
    (PIPELINES, INSTANCE),
    (_STATE, _FLOW, _TROUBLE),
)
