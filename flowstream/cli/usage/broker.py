"""`flowstream broker`: arguments, options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.parsing import parse_user

app: Final = new_app(work="flowstream.cli.commands.broker")


@app.command(
    epilog=examples(
        "flowstream broker",
        "flowstream broker --data /var/lib/flowstream --port 5553",
        "flowstream broker --host 0.0.0.0 --user orders:secret",
    )
)
def broker(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="NUMBER", help="The port to listen on; 0 for a free one."
        ),
    ] = 5552,
    data: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the streams.")] = Path(
        ".flowstream"
    ),
    memory: Annotated[
        bool, typer.Option("--memory", help="Keep streams in memory only, until the broker ends.")
    ] = False,
    user: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="NAME:PASSWORD",
            parser=parse_user,
            help="A user who may connect, instead of guest:guest. Repeatable.",
        ),
    ] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Run the embedded broker: one machine, the real protocol, nothing to install.

    It is for development and tests, and works with any client of RabbitMQ Streams. In production,
    use RabbitMQ and give its address with --url.
    """
