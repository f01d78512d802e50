"""`flowstream graph`: arguments, options and help."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json


class GraphFormat(StrEnum):
    TEXT = "text"
    MERMAID = "mermaid"


app: Final = new_app(work="flowstream.cli.commands.graph")


@app.command(
    epilog=examples(
        "flowstream graph pipelines.orders",
        "flowstream graph pipelines.orders --format mermaid",
        "flowstream graph pipelines.orders pipelines.feed --json",
    )
)
def graph(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE[:NAME]", help="Modules with pipelines."),
    ],
    *,
    format: Annotated[
        GraphFormat, typer.Option(help="The format. GitHub, GitLab and many wikis draw Mermaid.")
    ] = GraphFormat.TEXT,
    json: Json = False,
) -> None:
    """Draw pipelines: from their streams through their handlers to where messages end.

    Ends are marked with their guarantee, such as "exactly once"; without a mark, it is at least
    once. `flowstream check` says why.
    """
