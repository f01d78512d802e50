"""`flowstream publish`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, Url
from flowstream.cli.publishing.records import Format

app: Final = new_app(work="flowstream.cli.commands.publish")


@app.command(
    epilog=examples(
        "flowstream publish orders orders.csv --create",
        "flowstream publish events events.ndjson.gz",
        "flowstream publish orders orders.csv --name orders-2026-11 --from-line 100001",
        "flowstream publish orders orders.csv --key customer_id",
        "flowstream publish orders orders.csv --rate 500 --loop",
        "tail -f app.log | flowstream publish logs -",
    )
)
def publish(
    stream: Annotated[str, typer.Argument(help="The stream or super stream to publish to.")],
    file: Annotated[
        str, typer.Argument(help="A file of NDJSON, CSV or lines, also .gz; - for standard input.")
    ],
    *,
    format: Annotated[
        Format | None,
        typer.Option("--format", help="The format of the file. Default: by its extension."),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the stream if it does not exist.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Publish plain bodies instead of AMQP 1.0 messages."),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.01, metavar="NUMBER", help="The largest number of messages a second."
        ),
    ] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Start again at the end of the file, until Ctrl-C.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="FIELD",
            help="For a super stream: the field whose value selects the partition.",
        ),
    ] = None,
    first: Annotated[
        int,
        typer.Option(
            "--from-line",
            min=1,
            metavar="N",
            help="Start with this line, or with the first record that begins after it.",
        ),
    ] = 1,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Publish no line twice that was already published under this name.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish a file to a stream: each line or record is one message.

    It ends once the broker has confirmed every message. If it ends earlier, it says how many
    messages are confirmed, and the line to continue with. CSV needs a header; every record becomes
    a JSON object of strings.

    Publishing a file twice adds its messages twice, except under the same --name: then the broker
    drops every line up to the last one that it has under this name. Use a name for one file only,
    and correct lines in place, because lines are recognised by their number.

    In a super stream, the value of the --key field selects the partition as in all clients: by its
    hash, or as a routing key if the super stream was created with routing keys. It must be a string
    or a number.
    """
