"""`flowstream workers list|restart`: options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json

app: Final = new_app(
    "workers",
    "List the worker processes of flowstream run --workers, and restart them one by one.",
    examples("flowstream workers list", "flowstream workers restart"),
    work="flowstream.cli.commands.workers",
)


@app.command("list", epilog=examples("flowstream workers list", "flowstream workers list --json"))
def list_workers(json: Json = False) -> None:
    """List your runs with workers on this machine, and which partitions each worker reads."""


@app.command(epilog=examples("flowstream workers restart", "flowstream workers restart 4711"))
def restart(
    pid: Annotated[
        int | None,
        typer.Argument(metavar="PID", help="The run, if there are several: its process."),
    ] = None,
) -> None:
    """Replace the workers of a run one by one, by processes that import the modules again.

    Each new worker has to be ready, and all partitions have to be read, before the one that it
    replaces drains. A new worker that cannot start changes nothing: the restart ends with its
    error.
    """
