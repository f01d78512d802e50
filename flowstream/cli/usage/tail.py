"""`flowstream peek|tail`: arguments, options and help."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Url
from flowstream.cli.parser.parsing import parse_offset, parse_pattern

Stream = Annotated[str, typer.Argument(help="The stream or super stream.")]
Grep = Annotated[
    re.Pattern[str] | None,
    typer.Option(
        metavar="REGEX", parser=parse_pattern, help="Only messages whose body or properties match."
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON document per line.")]
Bodies = Annotated[
    bool,
    typer.Option("--bodies", help="Print only bodies: unchanged in a pipe, escaped on a terminal."),
]
From = Annotated[
    Any,
    typer.Option(
        "--from",
        metavar="OFFSET",
        parser=parse_offset,
        help="Where to start: first, last, next, an offset, a time (2026-11-23T09:00), or an age "
        "(30m, 2h, 7d).",
    ),
]

app: Final = new_app(work="flowstream.cli.commands.tail")


@app.command(
    epilog=examples(
        "flowstream peek orders",
        "flowstream peek orders --last 20",
        "flowstream peek orders --from 2h --grep 'customer_id\": 42'",
        "flowstream peek orders -n 1000 --json | jq .body.amount",
    )
)
def peek(
    stream: Stream,
    *,
    start: From = None,
    count: Annotated[
        int,
        typer.Option(
            "-n", "--count", min=1, metavar="NUMBER", help="The largest number of messages."
        ),
    ] = 10,
    last: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Show so many of the last messages instead."),
    ] = None,
    grep: Grep = None,
    json: JsonLines = False,
    bodies: Bodies = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show some messages of a stream and end.

    With --json a message has its `body` (JSON, with every digit as published), or `text`, or
    `base64` with the `reason`. For a super stream, so many messages of each partition are shown.
    Messages stay in the stream, and no offset is stored.
    """


@app.command(
    epilog=examples(
        "flowstream tail orders",
        "flowstream tail orders --from 10m",
        "flowstream tail orders.dead --json",
    )
)
def tail(
    stream: Stream,
    *,
    start: From = None,
    grep: Grep = None,
    json: JsonLines = False,
    bodies: Bodies = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show messages as they arrive, until Ctrl-C.

    It starts with the next message, or at --from. For a super stream, all partitions are shown.
    Messages stay in the stream, and no offset is stored.
    """
