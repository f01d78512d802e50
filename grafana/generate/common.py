"""What the dashboards share: variables, thresholds, and queries of several panels."""

from __future__ import annotations

import dataclasses

from grafana.generate.model import Threshold, Variable
from grafana.generate.promql import Promql, fold

panels = Promql({"pipeline": "=~$pipeline", "instance": "=~$instance"}, "$__rate_interval")
"""Queries for the pipelines and instances that are selected at the top of a dashboard."""

PIPELINES = Variable("pipeline", "phase", "Pipeline")
ONE_PIPELINE = dataclasses.replace(PIPELINES, single=True)
INSTANCE = Variable("instance", "build_info", "Instance")

FAILING = "=~dead_lettered|discarded"
"""Matches the outcomes of failed messages."""

LATE = (Threshold(30, "yellow"), Threshold(300, "red"))
SHARE_FAILING = (Threshold(0.001, "yellow"), Threshold(0.01, "red"))


def lag_messages(promql: Promql, *by: str) -> str:
    """Query for the messages behind. A stream counts once, also if two processes report it."""
    return fold("sum", promql.fold("max", "lag_messages", "pipeline", "stream"), *by)


def share(part: str, whole: str) -> str:
    """`part` divided by `whole`, and 0 if `part` has no value; both have the same labels."""
    return f"({part}\nor {whole} * 0)\n/\n{whole}"
