"""`flowstream config`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.parser.command import COMMAND_LINE, new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json

app: Final = new_app(work="flowstream.cli.commands.config")


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "flowstream config",
        "flowstream config --json",
        "flowstream config run pipelines.orders --http :9464",
    ),
)
def config(
    context: typer.Context,
    line: Annotated[
        list[str] | None,
        typer.Argument(metavar=COMMAND_LINE, help="Show the settings for this command line."),
    ] = None,
    json: Json = False,
) -> None:
    """Show every setting, with its value and where it came from.

    The first place with a value decides: an option on the command line, the environment
    (FLOWSTREAM_...), the file .env, the table tool.flowstream in pyproject.toml, the default.
    Secrets are masked.
    """
