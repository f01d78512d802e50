"""`flowstream top`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import RunAddresses

LIVE_INTERVAL = 1.0

PLAIN_INTERVAL = 10.0

app: Final = new_app(work="flowstream.cli.commands.top")


@app.command(
    epilog=examples(
        "flowstream top",
        "flowstream top --http 10.0.0.5:9464 --http 10.0.0.6:9464",
        "flowstream top --once --json",
    )
)
def top(
    *,
    http: RunAddresses = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show the current figures, and end.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help=f"The time between updates. Default: {LIVE_INTERVAL:g} on a terminal, else "
            f"{PLAIN_INTERVAL:g}.",
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print plain lines instead of the live view.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON document per line; with --once one list.")
    ] = False,
) -> None:
    """Watch running pipelines: rates, lag, stages, batches, failures, committed offsets.

    Figures come from the live page of each run (flowstream run ... --http). A run that does not
    answer stays with its last figures, and is updated once it answers again. Ctrl-C ends it.
    """
