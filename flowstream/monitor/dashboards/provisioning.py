"""What Prometheus and Grafana read at their start, so that the dashboards find their data."""

from __future__ import annotations

from dataclasses import dataclass

from flowstream.monitor.dashboards.yaml import dump

DASHBOARDS_PATH = "/etc/grafana/dashboards"
"""Where Grafana looks for the dashboards' files."""
RULES_FILE = "flowstream.rules.yml"
SCRAPE_INTERVAL = "5s"


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """What is different from place to place.

    `targets` are the runs' `--http` addresses as Prometheus reaches them, `prometheus` is its URL
    as Grafana reaches it, and `runbooks` the page that alerts link to (an anchor is added): None is
    the one that the first of the runs serves.
    """

    targets: tuple[str, ...] = ("localhost:9464",)
    prometheus: str = "http://localhost:9090"
    runbooks: str | None = None

    @property
    def runbook_page(self) -> str:
        """The address of the page that alerts link to."""
        return self.runbooks or f"http://{self.targets[0]}/runbooks"


def prometheus_configuration(settings: DashboardSettings) -> str:
    """prometheus.yml: scrape the runs, load the rules."""
    return dump(
        {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "15s"},
            "rule_files": [RULES_FILE],
            "scrape_configs": [
                {
                    "job_name": "flowstream",
                    "static_configs": [{"targets": list(settings.targets)}],
                }
            ],
        },
        comment="Written by `flowstream dashboards export`: what Prometheus scrapes and evaluates.",
    )


def grafana_data_source(settings: DashboardSettings) -> str:
    """The Prometheus that the dashboards ask unless another one is chosen."""
    return dump(
        {
            "apiVersion": 1,
            "datasources": [
                {
                    "name": "Prometheus",
                    "uid": "prometheus",
                    "type": "prometheus",
                    "access": "proxy",
                    "url": settings.prometheus,
                    "isDefault": True,
                    # $__rate_interval follows from it.
                    "jsonData": {"timeInterval": SCRAPE_INTERVAL},
                }
            ],
        },
        comment="Written by `flowstream dashboards export`: where Grafana finds the metrics.",
    )


def grafana_dashboards() -> str:
    """Which folder Grafana loads dashboards from."""
    return dump(
        {
            "apiVersion": 1,
            "providers": [
                {
                    "name": "flowstream",
                    "folder": "flowstream",
                    "type": "file",
                    "updateIntervalSeconds": 30,
                    "allowUiUpdates": False,
                    "options": {"path": DASHBOARDS_PATH},
                }
            ],
        },
        comment="Written by `flowstream dashboards export`: where Grafana finds the dashboards.",
    )
