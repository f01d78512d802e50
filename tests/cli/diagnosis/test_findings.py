"""Findings: one line for each, a summary that counts, and the exit code."""

from __future__ import annotations

import json

import pytest
import typer

from flowstream.cli.diagnosis.findings import Finding, bad, info, ok, print_findings, summary, warn
from flowstream.cli.exit_codes import ExitCode

GOOD = ok("machine", "Python", "3.11.7")
WARNING = warn("machine", "uvloop", "not installed", "pip install uvloop")
KNOWN = info("shop", "load guarantee", "exactly once")
WRONG = bad("broker", "login", ValueError("refused\nby the broker"), "check the password")


@pytest.mark.parametrize(
    ("findings", "text"),
    [
        ([GOOD], "1 check, all ok"),
        ([GOOD, KNOWN], "1 check, all ok"),
        ([GOOD, WARNING, KNOWN], "2 checks: 0 bad, 1 warning"),
        ([WRONG, GOOD, WARNING, WARNING], "4 checks: 1 bad, 2 warnings"),
        ([], "0 checks, all ok"),
    ],
)
def test_the_summary_counts_checks_and_no_infos(findings: list[Finding], text: str) -> None:
    assert summary(findings) == text


def test_what_is_not_ok_has_its_remedy_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([GOOD, WARNING, KNOWN], json=False)
    out, err = capsys.readouterr()
    table, _, infos = out.partition("\n\n")
    assert "not installed — pip install uvloop" in table
    assert "exactly once" in infos
    assert "exactly once" not in table
    assert err == "2 checks: 0 bad, 1 warning\n"


def test_one_that_is_bad_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\n" not in WRONG.detail
    with pytest.raises(typer.Exit) as ended:
        print_findings([GOOD, WRONG], json=True)
    assert ended.value.exit_code == ExitCode.CHECK_FAILED
    found = json.loads(capsys.readouterr().out)
    assert [each["result"] for each in found] == ["ok", "bad"]
    assert found[1]["remedy"] == "check the password"
