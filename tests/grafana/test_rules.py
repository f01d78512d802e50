"""Prometheus takes the rules and every panel's query; each alert fires and clears."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.grafana.prometheus import promtool
from tests.grafana.queries import RULES, panel_queries, read_rules, rules, substituted
from tests.grafana.series import CASES, Case


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_promtool_takes_the_configuration() -> None:
    promtool("check", "config", RULES.with_name("prometheus.yml"))


def test_prometheus_can_parse_every_panel(tmp_path: Path) -> None:
    """As recording rules, since promtool checks expressions only there."""
    queries = [
        {"record": f"query:{number}", "expr": substituted(query.expression, "1m")}
        for number, query in enumerate(panel_queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": queries}]}))
    promtool("check", "rules", file)


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == rules("alert").keys()


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}-{number}")
        for name, cases in CASES.items()
        for number, case in enumerate(cases)
    ],
)
def test_it_fires_and_clears(name: str, case: Case, tmp_path: Path) -> None:
    fired = [] if case.fires is None else [_at(name, case.fires, [_alert(name, case)])]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": series, "values": values} for series, values in case.series.items()
        ],
        "alert_rule_test": [_at(name, case.quiet, []), *fired, _at(name, case.clear, [])],
    }
    file = tmp_path / f"{name}.yml"
    alone = tmp_path / "rules.yml"
    alone.write_text(json.dumps(_without_other_alerts(name)))  # JSON is YAML, and quicker
    document = {"rule_files": [str(alone)], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(json.dumps(document))
    promtool("test", "rules", file)


def _without_other_alerts(name: str) -> dict[str, Any]:
    """The rules with this alert alone: to evaluate the others would take longer than the test."""
    return {
        "groups": [
            {**group, "rules": [each for each in group["rules"] if each.get("alert", name) == name]}
            for group in read_rules()["groups"]
        ]
    }


def _at(name: str, minute: int, expected: list[Any]) -> dict[str, Any]:
    return {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected}


def _alert(name: str, case: Case) -> dict[str, Any]:
    rule = rules("alert")[name]
    annotations: Mapping[str, str] = rule["annotations"]
    return {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": {key: _shown(text, case) for key, text in annotations.items()},
    }


def _shown(text: str, case: Case) -> str:
    """An annotation with its templates filled in."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: case.labels[found[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", lambda _: case.value, text)
