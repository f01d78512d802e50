"""`flowstream check`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, Url

app: Final = new_app(work="flowstream.cli.commands.check")


@app.command(
    epilog=examples(
        "flowstream check pipelines.orders",
        "flowstream check pipelines.orders pipelines.feed --connect",
        "flowstream check pipelines.orders --json",
    )
)
def check(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE[:NAME]", help="Modules with pipelines."),
    ],
    *,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect", help="Also check streams, permissions and offsets at the broker."
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Check that pipelines would run: declaration, options, handlers and payload types.

    It also says what each end of a pipeline guarantees (exactly once, at least once, at most once),
    why not more, and how to get it. Nothing is consumed, published or stored. With --connect, the
    streams, the user's permissions, the dead-letter stream and the stored offsets are checked too.
    The exit code is 24 if a check finds a problem.
    """
