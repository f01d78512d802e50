"""The shipped dashboards and rules, with the addresses of an installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream.errors import FlowstreamError
from flowstream.monitor import COMPOSE, DashboardSettings, dashboard_files, dashboards

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)


def parsed(text: str) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def read(files: dict[str, str], name: str) -> Any:
    return parsed(files[name])


def test_settings_reach_the_files() -> None:
    files = dashboard_files(
        DashboardSettings(("a:1", "b:2"), "https://p.example", "https://docs.example/run")
    )
    assert '- "a:1"\n          - "b:2"' in files["prometheus/prometheus.yml"]
    assert "https://p.example" in files["provisioning/datasources/flowstream.yml"]
    assert "https://docs.example/run#flowstreamstuck" in files["prometheus/flowstream.rules.yml"]


@settings(max_examples=min(settings().max_examples, 100))
@given(st.lists(ADDRESS, min_size=1, max_size=3), ADDRESS, ADDRESS)
def test_any_address_is_read_back(targets: list[str], prometheus: str, runbooks: str) -> None:
    """Whatever YAML makes of such characters, and nothing else in the files changes."""
    files = dashboard_files(DashboardSettings(tuple(targets), prometheus, runbooks))
    scraped = read(files, "prometheus/prometheus.yml")
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": targets}]
    source = read(files, "provisioning/datasources/flowstream.yml")
    assert source["datasources"][0]["url"] == prometheus
    groups = read(files, "prometheus/flowstream.rules.yml")["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(alerts) > 10
    for alert in alerts:
        assert alert["annotations"]["runbook_url"] == f"{runbooks}#{alert['alert'].lower()}"


def test_only_addresses_differ() -> None:
    files, shipped = dashboard_files(), dashboard_files(COMPOSE)
    for name, text in files.items():
        kept = (ROOT / "grafana" / name).read_text()
        assert shipped[name] == kept or yaml.safe_load(shipped[name]) == yaml.safe_load(kept)
        lines = zip(text.splitlines(), shipped[name].splitlines(), strict=True)
        for ours, theirs in lines:
            assert ours == theirs or "localhost:" in ours


def test_an_installation_without_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "FOLDERS", ("missing",))
    with pytest.raises(FlowstreamError, match="the dashboards are missing"):
        dashboard_files()
