"""The generator of the files in grafana/ and of docs/metrics.md, from the metric catalogue.

    make dashboards        # or: python -m grafana.generate

It is a tool of this repository and not part of the package, which ships the files that it writes.
A metric or label that `flowstream.metrics.CATALOGUE` does not have is an error here, so a query
cannot ask for something that no run exposes.

Read in this order:

    model.py                what a dashboard consists of: rows, panels, queries, variables
    promql.py               builds the queries; common.py has those that several files use
    overview.py, pipeline.py, partitions.py, publisher.py, runtime.py    one dashboard each
    rules.py                recording rules and alerts
    dashboard_json.py       a dashboard as the JSON that Grafana reads
    provisioning.py         the configuration of Prometheus and Grafana, and YAML
    reference.py            docs/metrics.md: every metric, and the panels and alerts that use it
"""

from __future__ import annotations

from grafana.generate import provisioning
from grafana.generate.dashboard_json import to_json
from grafana.generate.overview import OVERVIEW
from grafana.generate.partitions import PARTITIONS
from grafana.generate.pipeline import PIPELINE
from grafana.generate.publisher import PUBLISHER
from grafana.generate.reference import reference
from grafana.generate.rules import ALERTS, RECORDINGS, rules_file
from grafana.generate.runtime import RUNTIME

__all__ = ["ALERTS", "DASHBOARDS", "RECORDINGS", "generated_files"]

DASHBOARDS = (OVERVIEW, PIPELINE, PARTITIONS, PUBLISHER, RUNTIME)


def generated_files() -> dict[str, str]:
    """The text of every generated file, by its path in the repository."""
    return {
        **{f"grafana/dashboards/{each.uid}.json": to_json(each) for each in DASHBOARDS},
        "grafana/prometheus/flowstream.rules.yml": rules_file(),
        "grafana/prometheus/prometheus.yml": provisioning.prometheus_configuration(),
        "grafana/provisioning/datasources/flowstream.yml": provisioning.grafana_data_source(),
        "grafana/provisioning/dashboards/flowstream.yml": provisioning.grafana_dashboards(),
        "docs/metrics.md": reference(DASHBOARDS),
    }
