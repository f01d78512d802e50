"""What the dashboards share: variables, thresholds, and expressions that several panels show."""

from __future__ import annotations

import dataclasses

from grafana.generate.model import Threshold, Variable
from grafana.generate.promql import Promql, fold

panels = Promql({"pipeline": "=~$pipeline", "instance": "=~$instance"}, "$__rate_interval")
"""Expressions of panels: of the pipelines and instances that are chosen at the top."""

PIPELINES = Variable("pipeline", "phase", "Pipeline")
ONE_PIPELINE = dataclasses.replace(PIPELINES, single=True)
INSTANCE = Variable("instance", "build_info", "Instance")

FAILING = "=~dead_lettered|discarded"
"""Outcomes that nobody wants."""

LATE = (Threshold(30, "yellow"), Threshold(300, "red"))
SHARE_FAILING = (Threshold(0.001, "yellow"), Threshold(0.01, "red"))


def lag_messages(promql: Promql, *by: str) -> str:
    """Messages behind. A stream counts once, also while two processes know of it."""
    return fold("sum", promql.fold("max", "lag_messages", "pipeline", "stream"), *by)


def share(part: str, whole: str) -> str:
    """`part` of `whole`, 0 where there is a whole and no part; both with the same labels."""
    return f"({part}\nor {whole} * 0)\n/\n{whole}"
