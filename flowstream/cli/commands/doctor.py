"""`flowstream doctor`: whether this machine and the broker are ready for pipelines."""

from __future__ import annotations

from flowstream.cli.connection.connect import connection
from flowstream.cli.diagnosis.broker import examine
from flowstream.cli.diagnosis.findings import Finding, print_findings
from flowstream.cli.diagnosis.machine import local
from flowstream.cli.event_loop import run_async


def doctor(streams: list[str] | None, *, management: str | None, url: str, json: bool) -> None:
    findings: list[Finding] = list(local())
    findings += run_async(examine, connection(url), streams or [], management)
    print_findings(findings, json=json)
