"""`flowstream bench`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, Url

TIME_SIZE = 8
"""Bytes of the time that a body begins with."""

app: Final = new_app(work="flowstream.cli.commands.bench")


@app.command(
    epilog=examples(
        "flowstream bench",
        "flowstream bench --url rabbitmq-stream://guest:guest@rabbit:5552/ --seconds 10",
        "flowstream bench --size 1000 --messages 100000 --json",
    )
)
def bench(
    *,
    messages: Annotated[
        int,
        typer.Option(
            "-n",
            "--messages",
            min=1,
            metavar="NUMBER",
            help="The largest number of messages to publish.",
        ),
    ] = 1_000_000,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="NUMBER", help="The longest time of each of the four measurements."
        ),
    ] = 5.0,
    size: Annotated[
        int,
        typer.Option(
            min=TIME_SIZE, max=1_000_000, metavar="NUMBER", help="The size of a message in bytes."
        ),
    ] = 100,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Measure publishing and consuming on a broker, in a stream that is deleted afterwards.

    There are four measurements: publishing as fast as confirms allow, consuming what was published,
    publishing each message after the confirm of the one before, and delivery from publisher to
    consumer at 500 messages a second. The first and third show the latency of confirms, the fourth
    the latency until delivery. The stream takes up to messages x size bytes of the broker's disk.
    Ctrl-C ends the command, deletes the stream and shows what was measured.
    """
