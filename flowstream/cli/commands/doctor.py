"""`flowstream doctor`: is this machine ready, and is the broker reachable as clients need it?"""

from __future__ import annotations

from typing import Annotated

import typer

from flowstream.cli.diagnosis.findings import Finding, tell
from flowstream.cli.parser.options import (
    DEFAULT_URL,
    Json,
    ManagementUrl,
    Url,
    examples,
    run_async,
)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream doctor",
            "flowstream doctor orders orders.dead",
            "flowstream doctor --url rabbitmq-stream+tls://me:secret@rabbit/shop --tls-ca ca.pem",
            "flowstream doctor --json",
        )
    )(doctor)


def doctor(
    streams: Annotated[
        list[str] | None,
        typer.Argument(metavar="STREAM", help="Are the nodes of these reachable too?"),
    ] = None,
    *,
    management: ManagementUrl = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Look for what keeps pipelines from running, or from running well; say what to do.

    The Python at hand, installed extras and limits; then the broker: is it reachable, does it let
    this user in, which version is it, which commands does it speak, does it advertise addresses
    that work from here, do its clock and this one agree. Exit code 24: something is bad.
    """
    from flowstream.cli.connection.connect import connection
    from flowstream.cli.diagnosis.broker import examine
    from flowstream.cli.diagnosis.machine import local

    findings: list[Finding] = list(local())
    findings += run_async(examine, connection(url), streams or [], management)
    tell(findings, json=json)
