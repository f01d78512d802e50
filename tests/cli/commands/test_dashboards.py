"""`flowstream dashboards export`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import Terminal, flowstream
from tests.cli.rows import Bad, Row

ROWS = {
    ("dashboards", "export"): Row(
        "{n}", r"\w+/prometheus/prometheus\.yml[\s\S]+\d files written",
        Bad("shop.py", 2, "cannot write shop.py"), document="flowstream-overview.json",
        alone=True,
    ),
}  # fmt: skip


def test_files_are_written_and_written_again(tmp_path: Path) -> None:
    first = flowstream("dashboards", "export", "monitoring", cwd=tmp_path)
    assert first.code == 0, first.err
    names = first.out.splitlines()
    assert "monitoring/dashboards/flowstream-overview.json" in names
    assert first.err == f"{len(names)} files written\n"
    for name in names:
        assert (tmp_path / name).read_text()
    again = flowstream("dashboards", "export", "monitoring", "--json", cwd=tmp_path)
    assert again.code == 0
    assert again.json == names


def test_options_reach_the_files(tmp_path: Path) -> None:
    result = flowstream(
        *("dashboards", "export", ".", "--scrape", "a:1", "--scrape", "b:2"),
        *("--prometheus", "https://p.example", "--runbooks", "https://docs.example/run"),
        cwd=tmp_path,
    )
    assert result.code == 0
    assert '"b:2"' in (tmp_path / "prometheus/prometheus.yml").read_text()
    assert "https://p.example" in (tmp_path / "provisioning/datasources/flowstream.yml").read_text()
    rules = (tmp_path / "prometheus/flowstream.rules.yml").read_text()
    assert "https://docs.example/run#flowstreamstuck" in rules


def test_alerts_link_to_a_page_that_is_there(tmp_path: Path) -> None:
    for arguments, address in (((), "localhost:9464"), (("--scrape", "a:1"), "a:1")):
        result = flowstream("dashboards", "export", ".", "--force", *arguments, cwd=tmp_path)
        assert result.code == 0
        rules = (tmp_path / "prometheus/flowstream.rules.yml").read_text()
        assert f"http://{address}/runbooks#flowstreamstuck" in rules


def test_what_was_changed_is_kept_unless_forced(tmp_path: Path) -> None:
    flowstream("dashboards", "export", ".", cwd=tmp_path)
    changed = tmp_path / "dashboards/flowstream-runtime.json"
    changed.write_text("{}")
    refused = flowstream("dashboards", "export", ".", "--scrape", "other:1", cwd=tmp_path)
    assert refused.code == 2
    assert refused.err.startswith("error: dashboards/flowstream-runtime.json exists with other")
    assert "--force" in refused.err
    assert "other:1" not in (tmp_path / "prometheus/prometheus.yml").read_text()
    assert flowstream("dashboards", "export", ".", "--force", cwd=tmp_path).code == 0
    assert json.loads(changed.read_text())["uid"] == "flowstream-runtime"


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = flowstream("dashboards", "export", "file", cwd=tmp_path)
    assert result.code == 2
    assert result.err.startswith("error: cannot write file")
    assert len(result.err.splitlines()) == 1


def test_on_a_terminal(tmp_path: Path) -> None:
    with Terminal("dashboards", "export", "monitoring", cwd=tmp_path) as terminal:
        terminal.expect("9 files written")
        assert terminal.end() == 0
