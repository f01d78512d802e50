"""The first page: every pipeline on one screen, and which one to look into."""

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
from grafana.generate.promql import fold

_COMMIT_AGE = f"time() - {panels.fold('max', 'last_commit_timestamp_seconds', 'pipeline')}"
_SHARE_FAILING = share(
    panels.rate("settled_messages", "pipeline", outcome=FAILING),
    panels.rate("settled_messages", "pipeline"),
)

_STATE = Row(
    "Is everything all right?",
    (
        Panel(
            "Pipelines running",
            "Pipelines of which at least one process is in the phase running. Fewer than you "
            "started: look for one that halted, drains or cannot start.",
            (Query(fold("sum", panels.fold("max", "phase", "pipeline", phase="running"))),),
            "short",
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Messages behind",
            "Messages in the streams that are not settled yet, over all pipelines.",
            (Query(fold("sum", lag_messages(panels))),),
            "short",
            "stat",
            width=4,
            height=4,
        ),
        Panel(
            "Time behind",
            "Time since the oldest message that is not settled was published, in the pipeline that "
            "is most behind.",
            (Query(panels.fold("max", "lag_seconds")),),
            "s",
            "stat",
            width=4,
            height=4,
            thresholds=LATE,
        ),
        Panel(
            "Settled per second",
            "Messages that are done, whatever the outcome, over all pipelines.",
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
            "Alerts of flowstream that fire now; each has a runbook in its annotations.",
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
            "One line for each pipeline. Not ready is the number of checks of /readyz that fail; "
            "the window is the share of max_in_flight that is in use (full: the handlers are the "
            "limit); commit age is the time since the last commit of any of its streams.",
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
    "Keeping up?",
    (
        Panel(
            "Received",
            "Messages admitted into each pipeline per second. At a standstill with messages "
            "behind: back-pressure, a lost connection or a pause.",
            (Query(panels.rate("received_messages", "pipeline"), "{{pipeline}}"),),
            "cps",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Settled",
            "Messages that are done per second, whatever the outcome. Below what is received for "
            "long: the lag grows.",
            (Query(panels.rate("settled_messages", "pipeline"), "{{pipeline}}"),),
            "cps",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Messages behind, by pipeline",
            "Messages in the streams that are not settled yet. A line that only rises needs more "
            "concurrency, more processes, or a faster handler.",
            (Query(lag_messages(panels, "pipeline"), "{{pipeline}}"),),
            "short",
            drill_down="flowstream-partitions",
            passing=("pipeline",),
        ),
        Panel(
            "Time behind, by pipeline",
            "Time since the oldest message that is not settled was published: how old the data is "
            "that the pipeline's results lack.",
            (Query(panels.fold("max", "lag_seconds", "pipeline"), "{{pipeline}}"),),
            "s",
            thresholds=LATE,
            drill_down="flowstream-partitions",
            passing=("pipeline",),
        ),
        Panel(
            "Latency, 99th percentile",
            "From publishing until settled: 99 of 100 messages were faster. High without lag: "
            "batches wait for their size, or the handler is slow.",
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
    "Trouble",
    (
        Panel(
            "Failed messages",
            "Messages that failed for good per second, by pipeline and phase. decode: the payload "
            "is not what the handler's annotation says; process and batch: the handlers; sink: "
            "publishing.",
            (Query(panels.rate("failed_messages", "pipeline", "phase"), "{{pipeline}} {{phase}}"),),
            "cps",
            drill_down="flowstream-pipeline",
            passing=("pipeline",),
        ),
        Panel(
            "Without its broker",
            "Environments, publishers and consumers that have lost their broker and try again.",
            (Query(panels.fold("sum", "recovering", "instance", "kind"), "{{instance}} {{kind}}"),),
            "short",
            thresholds=(Threshold(1, "red"),),
            drill_down="flowstream-runtime",
            passing=("instance",),
        ),
        Panel(
            "Age of the process",
            "Time since each run began. Saw teeth are restarts.",
            (
                Query(
                    "time() - "
                    + panels.fold("max", "start_timestamp_seconds", "pipeline", "instance"),
                    "{{pipeline}} {{instance}}",
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
    "Every pipeline at a glance: is it keeping up, what fails, what is committed.",
    (PIPELINES, INSTANCE),
    (_STATE, _FLOW, _TROUBLE),
)
