"""Every PromQL expression in the files under grafana/, and what it asks for.

Read from the files as Grafana and Prometheus do, not from the values that made them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from flowstream.metrics import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "grafana"
RULES = GRAFANA / "prometheus" / "flowstream.rules.yml"

TARGET_LABELS = {"job", "instance", "worker"}
_PROCESS = {
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
    "process_open_fds": set[str](),
    "process_max_fds": set[str](),
    "python_gc_collections_total": {"generation"},
}
"""Metrics of the Prometheus client, which `flowstream.metrics` has beside the catalogue's."""


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """A query of a panel, as it stands in the dashboard's file."""

    dashboard: str
    panel: str
    ref: str
    expression: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.ref}"


def dashboards() -> dict[str, Any]:
    """The dashboards' files by name."""
    return {file.stem: json.loads(file.read_text()) for file in GRAFANA.glob("dashboards/*.json")}


def panel_queries() -> Iterator[PanelQuery]:
    for name, dashboard in sorted(dashboards().items()):
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield PanelQuery(
                    name, panel["title"], target["refId"], target["expr"], target["instant"]
                )


def rules(kind: str) -> dict[str, Any]:
    """The rules of a kind ("record" or "alert") by name."""
    groups = read_rules()["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


@cache
def read_rules() -> Any:
    """Read once: every query asks for them."""
    return yaml.safe_load(RULES.read_text())


def substituted(expression: str, window: str) -> str:
    """An expression as Grafana sends it when everything is chosen."""
    return re.sub(r"\$(pipeline|instance|stream)\b", ".+", expression).replace(
        "$__rate_interval", window
    )


# -- what an expression asks for

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SERIES = re.compile(r"(?<![\w:])([a-zA-Z_:][\w:]*)(?![\w:])(\{[^}]*\})?(?!\s*\()")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_WORDS = {"and", "or", "unless", "offset", "bool"}


def labels_of_series() -> dict[str, set[str]]:
    """Every series that a scrape gives or a rule records, and its labels."""
    known: dict[str, set[str]] = dict(_PROCESS)
    for metric in CATALOGUE:
        if metric.kind == "histogram":
            for suffix in ("sum", "count"):
                known[f"{metric.full_name}_{suffix}"] = set(metric.labels)
            known[f"{metric.full_name}_bucket"] = {*metric.labels, "le"}
        else:
            known[metric.full_name] = set(metric.labels)
    known["ALERTS"] = {"alertname", "alertstate"}
    return known


def unknown(expression: str) -> set[str]:
    """What of the expression's series and labels does not exist."""
    known = labels_of_series()
    recorded = {name: recorded_labels(rule["expr"]) for name, rule in rules("record").items()}
    found: set[str] = set()
    used: set[str] = set()
    for name, matchers in asked(expression):
        if name not in known | recorded:
            found.add(name)
            continue
        labels = known.get(name, recorded.get(name, set())) | TARGET_LABELS
        used |= labels
        found |= {f"{name}{{{label}}}" for label in matchers - labels}
    return found | {f"by {label}" for label in grouped(expression) - used}


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The series of an expression, each with the labels that it is matched by."""
    bare = _GROUPING.sub("", _STRING.sub('""', expression))
    bare = re.sub(r"\[[^\]]*\]|\boffset \w+", "", bare)
    for name, matchers in _SERIES.findall(bare):
        if name not in _WORDS:
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


def grouped(expression: str) -> set[str]:
    return set(re.findall(r"\w+", " ".join(_GROUPING.findall(expression))))


def recorded_labels(expression: str) -> set[str]:
    return grouped(expression) - {"le"}
