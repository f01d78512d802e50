"""Grafana dashboards and Prometheus rules, generated from values that know the catalogue.

    for path, text in dashboard_files(DashboardSettings(targets=("app:9464",))).items(): ...

values.py       what a dashboard is made of; promql.py what a query is made of
overview.py ... the dashboards; rules.py recordings and alerts, each with a runbook
grafana.py      dashboards -> JSON; yaml.py and provisioning.py the rest of the files
"""

from __future__ import annotations

from flowstream.monitor.dashboards import provisioning, rules
from flowstream.monitor.dashboards.grafana import draw
from flowstream.monitor.dashboards.overview import OVERVIEW
from flowstream.monitor.dashboards.partitions import PARTITIONS
from flowstream.monitor.dashboards.pipeline import ONE
from flowstream.monitor.dashboards.provisioning import DashboardSettings
from flowstream.monitor.dashboards.publisher import PUBLISHER
from flowstream.monitor.dashboards.rules import ALERTS, RECORDINGS
from flowstream.monitor.dashboards.runtime import RUNTIME

__all__ = ["ALERTS", "DASHBOARDS", "RECORDINGS", "DashboardSettings", "dashboard_files"]

DASHBOARDS = (OVERVIEW, ONE, PARTITIONS, PUBLISHER, RUNTIME)


def dashboard_files(settings: DashboardSettings = DashboardSettings()) -> dict[str, str]:  # noqa: B008 - a frozen value
    """Every file by its path below the folder that they are written to."""
    return {
        **{f"dashboards/{each.uid}.json": draw(each) for each in DASHBOARDS},
        f"prometheus/{provisioning.RULES_FILE}": rules.as_yaml(settings.runbook_page),
        "prometheus/prometheus.yml": provisioning.prometheus_configuration(settings),
        "provisioning/datasources/flowstream.yml": provisioning.grafana_data_source(settings),
        "provisioning/dashboards/flowstream.yml": provisioning.grafana_dashboards(),
    }
