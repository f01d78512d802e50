"""docs/metrics.md: the panels and alerts of each metric, as read from the files under grafana/."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from flowstream.metrics import CATALOGUE
from grafana.generate import DASHBOARDS
from grafana.generate.reference import uses
from tests.grafana.queries import ROOT, asked, panel_queries, rules


def panels() -> dict[str, list[str]]:
    """Panels as "dashboard / panel"."""
    pairs = [
        (f"{query.dashboard.removeprefix('flowstream-')} / {query.panel}", query.expression)
        for query in panel_queries()
    ]
    return _by_metric(pairs)


def alerts() -> dict[str, list[str]]:
    """Alerts by what they ask for, and by what was recorded for them."""
    recorded = {name: rule["expr"] for name, rule in rules("record").items()}
    pairs = []
    for name, rule in rules("alert").items():
        pairs.append((name, rule["expr"]))
        pairs += [
            (name, recorded[series]) for series, _ in asked(rule["expr"]) if series in recorded
        ]
    return _by_metric(pairs)


def _by_metric(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    short = {
        metric.full_name + suffix: metric.name
        for metric in CATALOGUE
        for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
    }
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for user, expression in pairs:
        for series, _ in asked(expression):
            if series in short:
                found[short[series]][user] = None
    return {metric.name: list(found[metric.name]) for metric in CATALOGUE if metric.name in found}


def test_the_page_names_the_panels_and_alerts_of_each_metric() -> None:
    shown, watched = panels(), alerts()
    used = uses(DASHBOARDS)
    for metric in CATALOGUE:
        expected = [
            *shown.get(metric.name, ()),
            *(f"alert {a}" for a in watched.get(metric.name, ())),
        ]
        assert used.get(metric.name, []) == expected, metric.name


def test_the_page_has_every_metric() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for metric in CATALOGUE:
        assert f"| `{metric.full_name}` |" in page
        assert metric.help in page
