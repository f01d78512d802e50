"""The files under grafana/ are current, Grafana can read them, and they ask for what exists."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from flowstream.metrics import CATALOGUE
from grafana.generate import DASHBOARDS, generated_files
from grafana.generate.promql import Promql
from tests.grafana.queries import (
    GRAFANA,
    ROOT,
    PanelQuery,
    asked,
    dashboards,
    panel_queries,
    rules,
    unknown,
)

RUNBOOKS = "http://localhost:9464/runbooks"
NOT_SHOWN: dict[str, str] = {}
"""Metrics of the catalogue that no panel shows, and why."""

NAMES = [dashboard.uid for dashboard in DASHBOARDS]
QUERIES = list(panel_queries())


def test_the_files_are_current() -> None:
    written = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in [*GRAFANA.rglob("*.*"), ROOT / "docs" / "metrics.md"]
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert written == generated_files(), "run: make dashboards"


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> Any:
    return dashboards()[request.param]


def test_it_is_what_grafana_requires(dashboard: Any) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,40}", dashboard["uid"])
    assert dashboard["schemaVersion"] == 39
    assert dashboard["title"]
    assert dashboard["description"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(set(titles)) == len(titles)


def test_panels_lie_in_the_grid_without_overlap(dashboard: Any) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["h"] > 0
        assert place["w"] > 0
        assert 0 <= place["x"] <= 24 - place["w"]
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


def test_every_panel_says_what_it_shows_and_in_which_unit(dashboard: Any) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            assert panel["panels"] == []
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None
        assert steps[1:] == sorted(steps[1:])
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)


def test_variables_that_are_used_are_there(dashboard: Any) -> None:
    declared = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert declared[0] == "datasource"
    used = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"\$(\w+)", target["expr"])
    }
    assert used - {"__rate_interval"} == set(declared) - {"datasource"}


def test_ranges_follow_the_scrape_interval() -> None:
    for query in QUERIES:
        for window in re.findall(r"\[([^\]]*)\]", query.expression):
            assert window == "$__rate_interval", str(query)


def test_links_lead_to_dashboards_and_their_variables() -> None:
    files = dashboards()
    for name, file in files.items():
        assert [link["type"] for link in file["links"]] == ["dashboards"]
        assert file["links"][0]["tags"] == file["tags"]
        for panel in file["panels"]:
            links = panel.get("fieldConfig", {}).get("defaults", {}).get("links", ())
            for link in links:
                target, passed = re.fullmatch(r"/d/([a-z-]+)\?(.*)", link["url"]).groups()  # type: ignore[union-attr]
                variables = {each["name"] for each in files[target]["templating"]["list"]}
                assert set(re.findall(r"var-(\w+)=", passed)) <= variables, (name, panel["title"])


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_panels_ask_for_what_exists(query: PanelQuery) -> None:
    assert unknown(query.expression) == set()


@pytest.mark.parametrize("name", [*rules("record"), *rules("alert")])
def test_rules_ask_for_what_exists(name: str) -> None:
    assert unknown((rules("record") | rules("alert"))[name]["expr"]) == set()


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("sum by (stage) (rate(flowstream_received_messages_total[5m]))", {"by stage"}),
        (
            'flowstream_in_flight_messages{stream="s"}',
            {"flowstream_in_flight_messages{stream}"},
        ),
        ("flowstream_lag", {"flowstream_lag"}),
        ("max(flowstream_lag_messages) / flowstream_lagg_seconds", {"flowstream_lagg_seconds"}),
        (
            "histogram_quantile(0.9, sum by (le) (rate(flowstream_latency_seconds[5m])))",
            {"flowstream_latency_seconds", "by le"},
        ),
        ("flowstream_paused and on (stream) flowstream_ready", {"by stream"}),
    ],
)
def test_what_does_not_exist_is_found(expression: str, found: set[str]) -> None:
    assert unknown(expression) == found


def test_what_does_not_exist_cannot_be_written() -> None:
    promql = Promql({}, "5m")
    with pytest.raises(ValueError, match="no metric with the series 'lagg'"):
        promql.series("lagg")
    with pytest.raises(ValueError, match="'latency_seconds'"):
        promql.series("latency_seconds")
    with pytest.raises(ValueError, match="paused has no label stream"):
        promql.fold("max", "paused", "stream")
    with pytest.raises(ValueError, match="paused has no label stream"):
        promql.series("paused", stream="s")


def test_every_metric_is_shown_or_says_why_not() -> None:
    shown = {name for query in QUERIES for name, _ in asked(query.expression)}
    missing = {
        metric.name
        for metric in CATALOGUE
        if not shown & {metric.full_name + suffix for suffix in ("", "_bucket", "_sum", "_count")}
    }
    assert missing == NOT_SHOWN.keys()


def test_alerts_have_their_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", page, re.MULTILINE)}
    for name, alert in rules("alert").items():
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}#{name.lower()}"
        assert name.lower() in headings, f"docs/operations.md has no heading {name}"
        assert alert["labels"]["severity"] in {"critical", "warning"}
