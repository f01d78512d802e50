"""`flowstream doctor`: whether this machine and the broker are ready for pipelines."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.connection.connect import connection
from flowstream.cli.diagnosis.broker import examine
from flowstream.cli.diagnosis.findings import Finding, print_findings
from flowstream.cli.diagnosis.machine import local
from flowstream.cli.event_loop import run_async
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, ManagementUrl, Url
from flowstream.client import DEFAULT_URL

app: Final = new_app()


@app.command(
    epilog=examples(
        "flowstream doctor",
        "flowstream doctor orders orders.dead",
        "flowstream doctor --url rabbitmq-stream+tls://me:secret@rabbit/shop --tls-ca ca.pem",
        "flowstream doctor --json",
    )
)
def doctor(
    streams: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STREAM", help="Also check that the nodes of these streams are reachable."
        ),
    ] = None,
    *,
    management: ManagementUrl = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Find problems of this machine and the broker, with their remedies.

    Checked are Python, installed extras and limits, then the broker: connection, login, version,
    supported commands, the addresses that its nodes advertise, and its clock. The exit code is 24
    if something is bad.
    """
    findings: list[Finding] = list(local())
    findings += run_async(examine, connection(url), streams or [], management)
    print_findings(findings, json=json)
