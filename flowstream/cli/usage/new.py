"""`flowstream new`: arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples

app: Final = new_app(work="flowstream.cli.commands.new")


@app.command(
    epilog=examples("flowstream new orders", "flowstream new orders --directory pipelines")
)
def new(
    name: Annotated[
        str, typer.Argument(help="The name of the module, the pipeline and the stream.")
    ],
    *,
    directory: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The folder to write to. It is created if it does not exist."
        ),
    ] = Path("."),
) -> None:
    """Write NAME.py, a small pipeline, and test_NAME.py, which tests it without a broker.

    Both pass pytest and mypy --strict as written; install these with pip install mypy pytest.
    No file is overwritten.
    """
