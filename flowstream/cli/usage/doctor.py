"""`flowstream doctor`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, ManagementUrl, Url

app: Final = new_app(work="flowstream.cli.commands.doctor")


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

    It checks Python, installed extras and limits, then the broker: connection, login, version,
    supported commands, the addresses that its nodes advertise, and its clock. The exit code is 24
    if it finds a problem.
    """
