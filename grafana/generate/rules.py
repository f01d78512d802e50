"""The recording rules and alerts for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flowstream.monitor import COMPOSE
from grafana.generate.common import FAILING, lag_messages, share
from grafana.generate.promql import PROCESS, Promql, fold
from grafana.generate.provisioning import to_yaml

rules = Promql({}, "5m")
"""Queries without matchers, over the last five minutes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus computes and stores, named LEVEL:METRIC:OPERATION."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. It fires when `value` has satisfied `bound`, and also `condition`, for `hold`.

    `summary` and `description` are templates of Prometheus. `name` is also the heading of the
    runbook in docs/operations.md.
    """

    name: str
    value: str
    bound: str
    hold: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str
    condition: str = ""

    @property
    def expression(self) -> str:
        """The whole condition in PromQL."""
        return "\n".join(filter(None, (f"{self.value} {self.bound}", self.condition)))

    @property
    def anchor(self) -> str:
        """The anchor of the runbook on the page of runbooks."""
        return self.name.lower()


LAG = Recording(
    "pipeline_stream:flowstream_lag_messages:max",
    rules.fold("max", "lag_messages", "pipeline", "stream"),
)
PIPELINE_LAG = Recording("pipeline:flowstream_lag_messages:sum", lag_messages(rules, "pipeline"))
SETTLED = Recording(
    "pipeline:flowstream_settled_messages:rate5m", rules.rate("settled_messages", "pipeline")
)
FAILING_RATIO = Recording(
    "pipeline:flowstream_failing_messages:ratio_rate5m",
    share(
        rules.rate("settled_messages", "pipeline", outcome=FAILING),
        rules.rate("settled_messages", "pipeline"),
    ),
)
LATENCY = Recording(
    "pipeline:flowstream_latency_seconds:p99_5m",
    rules.quantile(0.99, "latency_seconds", "pipeline"),
)
_ANSWERED = rules.fold("sum", "confirmed_messages", "instance", "stream")
_CONFIRMED = rules.fold("sum", "confirmed_messages", "instance", "stream", code="1")
REFUSED = Recording(
    "instance_stream:flowstream_refused_messages:sum",
    f"{_ANSWERED}\n-\n({_CONFIRMED}\nor {_ANSWERED} * 0)",
)

RECORDINGS = (LAG, PIPELINE_LAG, SETTLED, FAILING_RATIO, LATENCY, REFUSED)


def _partitions(how: str) -> str:
    """The partitions of one process: of the one that reads most, for example."""
    return rules.fold(how, "active_partitions", "pipeline", "super_stream")


def _grown(name: str, window: str, *by: str, **where: str) -> str:
    """The increase of a counter, also if its first value was above 0 or its process has ended.

    `increase()` of Prometheus misses both cases.
    """
    series = rules.series(name, **where)
    most = f"max_over_time({series}[{window}])"
    return fold("sum", f"{most} - ({series} offset {window} or {most} * 0)", *by)


ALERTS = (
    Alert(
        "FlowstreamLagGrowing",
        value=f"deriv({LAG.name}[10m])",
        bound="> 0",
        condition="and on (pipeline, stream) "
        + rules.fold("max", "lag_seconds", "pipeline", "stream")
        + " > 60",
        hold="10m",
        severity="warning",
        summary="{{ $labels.pipeline }} falls behind on {{ $labels.stream }}",
        description="The lag has been growing for ten minutes, now by {{ $value | humanize }} "
        "messages per second, and the oldest unsettled message is more than a minute "
        "old.",
    ),
    Alert(
        "FlowstreamLagHigh",
        value=rules.fold("max", "lag_seconds", "pipeline", "stream"),
        bound="> 300",
        condition=f"and on (pipeline, stream) predict_linear({LAG.name}[10m], 3600) > 0\n"
        f"unless on (pipeline) {rules.fold('min', 'paused', 'pipeline')} == 1",
        hold="15m",
        severity="warning",
        summary="{{ $labels.pipeline }} stays behind on {{ $labels.stream }}",
        description="The oldest unsettled message is {{ $value | humanizeDuration }} old, and at "
        "the rate of the last ten minutes the lag will not be gone within an hour.",
    ),
    Alert(
        "FlowstreamPaused",
        value=rules.fold("max", "paused", "pipeline", "instance"),
        bound="== 1",
        hold="30m",
        severity="warning",
        summary="{{ $labels.pipeline }} on {{ $labels.instance }} has been paused for more than "
        "half an hour",
        description="A paused pipeline receives no messages. Somebody may have forgotten to "
        "resume it.",
    ),
    Alert(
        "FlowstreamNotCommitting",
        value=fold(
            "sum",
            f"increase({rules.series('commits', result='!=failed')}[5m])",
            "pipeline",
            "stream",
        ),
        bound="== 0",
        condition=f"and on (pipeline, stream) "
        f"{rules.increase('received_messages', 'pipeline', 'stream')} > 0\n"
        f"and on (pipeline, stream) {rules.fold('max', 'tail_offset', 'pipeline', 'stream')} >= 0",
        hold="5m",
        severity="critical",
        summary="{{ $labels.pipeline }} commits nothing on {{ $labels.stream }}",
        description="Messages arrive, and no offset has been stored for ten minutes. A restart "
        "now would repeat everything since the last commit.",
    ),
    Alert(
        "FlowstreamDeadLettering",
        value=FAILING_RATIO.name,
        bound="> 0.01",
        hold="5m",
        severity="warning",
        summary="Messages of {{ $labels.pipeline }} fail permanently",
        description="{{ $value | humanizePercentage }} of the messages are dead-lettered or "
        "discarded.",
    ),
    Alert(
        "FlowstreamTruncated",
        value=_grown("truncated_messages", "1h", "pipeline", "stream"),
        bound="> 0",
        hold="0m",
        severity="critical",
        summary="{{ $labels.pipeline }} has lost messages of {{ $labels.stream }}",
        description="In the last hour, retention removed {{ $value }} messages before the "
        "pipeline processed them.",
    ),
    Alert(
        "FlowstreamStuck",
        value=rules.fold("max", "progress_age_seconds", "pipeline", *PROCESS),
        bound="> 60",
        condition=f"and on (pipeline, instance, worker) "
        f"{rules.fold('max', 'oldest_in_flight_seconds', 'pipeline', *PROCESS)} > 60\n"
        f"unless on (pipeline, instance, worker) "
        f"{rules.fold('max', 'paused', 'pipeline', *PROCESS)} == 1",
        hold="1m",
        severity="critical",
        summary="{{ $labels.pipeline }} on {{ $labels.instance }} is stuck",
        description="Messages are in flight, and none was settled for "
        "{{ $value | humanizeDuration }}.",
    ),
    Alert(
        "FlowstreamHandlerStuck",
        value=rules.fold("max", "longest_handler_seconds", "pipeline", "stage", *PROCESS),
        bound="> 300",
        hold="1m",
        severity="warning",
        summary="A handler of {{ $labels.pipeline }} is stuck",
        description="A handler call of the stage {{ $labels.stage }} on {{ $labels.instance }} "
        "has been running for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "FlowstreamStageCrashing",
        value=_grown("stage_crashes", "15m", "pipeline", "stage", "instance"),
        bound="> 0",
        hold="0m",
        severity="warning",
        summary="The stage {{ $labels.stage }} of {{ $labels.pipeline }} crashes",
        description="It crashed {{ $value }} times in the last 15 minutes on {{ $labels.instance "
        "}}, outside of a handler.",
    ),
    Alert(
        "FlowstreamRestarting",
        value=fold(
            "max",
            f"changes({rules.series('start_timestamp_seconds')}[15m])",
            "pipeline",
            "instance",
        ),
        bound="> 2",
        hold="0m",
        severity="critical",
        summary="{{ $labels.pipeline }} on {{ $labels.instance }} restarts repeatedly",
        description="It restarted {{ $value }} times in the last 15 minutes.",
    ),
    Alert(
        "FlowstreamUneven",
        value=f"{_partitions('max')}\n/\n{_partitions('avg')}",
        bound="> 1.5",
        condition=f"and on (pipeline, super_stream) "
        f"{_partitions('max')} - {_partitions('min')} > 1",
        hold="10m",
        severity="warning",
        summary="The load of {{ $labels.pipeline }} is uneven",
        description="One process reads {{ $value | humanize }} times its share of the partitions "
        "of {{ $labels.super_stream }}.",
    ),
    Alert(
        "FlowstreamGone",
        value=fold(
            "max",
            f"max_over_time({rules.series('start_timestamp_seconds')}[1h])",
            "pipeline",
        ),
        bound="> 0",
        condition=f"unless on (pipeline) "
        f"{rules.fold('max', 'start_timestamp_seconds', 'pipeline')}",
        hold="5m",
        severity="critical",
        summary="{{ $labels.pipeline }} is no longer running",
        description="It ran within the last hour, and Prometheus cannot scrape any of its "
        "processes now.",
    ),
    Alert(
        "FlowstreamDisconnected",
        value=rules.fold("max", "recovering", "instance", "kind", "name"),
        bound="> 0",
        hold="2m",
        severity="critical",
        summary="{{ $labels.instance }} is disconnected from the broker",
        description="The {{ $labels.kind }} {{ $labels.name }} lost its connection two minutes "
        "ago or earlier and has not reconnected.",
    ),
    Alert(
        "FlowstreamNotReady",
        value=rules.fold("min", "ready", "pipeline", *PROCESS, "check"),
        bound="< 1",
        hold="5m",
        severity="warning",
        summary="{{ $labels.pipeline }} on {{ $labels.instance }} is not ready",
        description="The check {{ $labels.check }} of /readyz fails.",
    ),
    Alert(
        "FlowstreamPublishRefused",
        value=f"{REFUSED.name} - ({REFUSED.name} offset 15m or {REFUSED.name} * 0)",
        bound="> 0",
        hold="0m",
        severity="warning",
        summary="The broker did not accept messages for {{ $labels.stream }}",
        description="In the last 15 minutes, it refused {{ $value }} messages from {{ "
        "$labels.instance }} or did not respond to them in time.",
    ),
    Alert(
        "FlowstreamEventLoopBlocked",
        value=rules.quantile(0.99, "event_loop_lag_seconds", *PROCESS),
        bound="> 0.5",
        hold="5m",
        severity="warning",
        summary="The event loop of {{ $labels.instance }} is blocked",
        description="Timers are {{ $value | humanizeDuration }} late; heartbeats and everything "
        "else on the loop are delayed as much.",
    ),
)


def rules_file() -> str:
    """The rules as a file of Prometheus."""
    groups = [
        {"name": "flowstream-recordings", "rules": [_recording(each) for each in RECORDINGS]},
        {"name": "flowstream-alerts", "rules": [_alert(each) for each in ALERTS]},
    ]
    return to_yaml({"groups": groups}, "Recording rules and alerts.")


def _recording(recording: Recording) -> dict[str, Any]:
    return {"record": recording.name, "expr": recording.expression}


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{COMPOSE.runbook_page}#{alert.anchor}",
        },
    }
