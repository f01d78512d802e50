"""Findings of `check` and `doctor`: one line for each, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import typer

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.output.console import note, one_line, print_json, say
from flowstream.cli.output.tables import print_rows
from flowstream.texts import plural

Result = Literal["ok", "info", "warn", "bad"]
"""`info` is worth knowing, and nothing was checked for it."""
STYLES = {"ok": "green", "info": "cyan", "warn": "yellow", "bad": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of `about`. `remedy` says what to do if it is not ok."""

    about: str
    check: str
    result: Result
    detail: str
    remedy: str = ""


def ok(about: str, check: str, detail: str) -> Finding:
    return Finding(about, check, "ok", one_line(detail))


def info(about: str, check: str, detail: str, remedy: str = "") -> Finding:
    return Finding(about, check, "info", one_line(detail), remedy)


def warn(about: str, check: str, detail: str, remedy: str = "") -> Finding:
    return Finding(about, check, "warn", one_line(detail), remedy)


def bad(about: str, check: str, detail: str | BaseException, remedy: str = "") -> Finding:
    return Finding(about, check, "bad", one_line(str(detail)), remedy)


def print_findings(findings: Sequence[Finding], *, json: bool) -> None:
    """Print the findings, and exit with CHECK_FAILED if one is bad."""
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [asdict(each) | {"detail": _detail(each)} for each in findings]
        checked = [row for row in rows if row["result"] != "info"]
        columns = ["result", "about", "check", "detail"]
        print_rows(checked, columns, empty="nothing to check", styles=STYLES)
        if len(checked) < len(rows):
            say("")
            infos = [row for row in rows if row["result"] == "info"]
            print_rows(infos, ["about", "check", "detail"], empty="")
        note(summary(findings))
    if count(findings, "bad"):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def count(findings: Iterable[Finding], result: Result) -> int:
    return sum(finding.result == result for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    """`12 checks: 1 bad, 2 warnings`."""
    wrong, warnings = count(findings, "bad"), count(findings, "warn")
    checks = plural(len(findings) - count(findings, "info"), "check")
    if not (wrong or warnings):
        return f"{checks}, all ok"
    return f"{checks}: {wrong} bad, {plural(warnings, 'warning')}"


def _detail(finding: Finding) -> str:
    return f"{finding.detail} — {finding.remedy}" if finding.remedy else finding.detail
