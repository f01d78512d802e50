"""`flowstream super-streams create|delete|list|list-partitions|route`: options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import (
    IfExists,
    IfMissing,
    Json,
    ManagementUrl,
    MaxAge,
    MaxBytes,
    SegmentBytes,
    Url,
    Yes,
)

app: Final = new_app(
    "super-streams",
    "Create, delete and inspect super streams: streams of several partitions.",
    examples(
        "flowstream super-streams create orders --partitions 3",
        "flowstream super-streams list-partitions orders",
        "flowstream super-streams route orders customer-42",
        "flowstream super-streams delete orders",
    ),
    work="flowstream.cli.commands.super_streams",
)

Name = Annotated[str, typer.Argument(metavar="SUPER_STREAM", help="The super stream.")]


@app.command(
    epilog=examples(
        "flowstream super-streams create orders --partitions 6 --max-age 7d",
        "flowstream super-streams create orders --key eu --key us --if-missing",
        "flowstream super-streams create orders.v2 --partitions 6 --from orders --key customer",
    )
)
def create(
    super_stream: Name,
    *,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="The number of partitions, named NAME-0, NAME-1 ... Default: 3.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead, a partition NAME-KEY for this routing key. Repeatable. With --from: the "
            "field of JSON bodies whose value selects the partition."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STREAM",
            help="Copy this stream or super stream, each message once, and follow it until Ctrl-C. "
            "The same command continues a copy.",
        ),
    ] = None,
    until_idle: Annotated[
        bool,
        typer.Option("--until-idle", help="With --from: end when everything is copied."),
    ] = False,
    discard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM@OFFSET",
            help="With --from: do not copy this message. Repeatable.",
        ),
    ] = None,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    segment_bytes: SegmentBytes = None,
    if_missing: IfMissing = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a super stream with its partitions (RabbitMQ 3.13 or later).

    The number of partitions cannot be changed: keys would move to other partitions. For more of
    them, copy the super stream into a new one, with --from.
    """


@app.command(
    epilog=examples(
        "flowstream super-streams delete orders",
        "flowstream super-streams delete orders --yes --if-exists",
    )
)
def delete(
    super_stream: Name,
    yes: Yes = False,
    if_exists: IfExists = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete a super stream with all its partitions, messages and stored offsets."""


@app.command(
    "list",
    epilog=examples(
        "flowstream super-streams list",
        "flowstream super-streams list --management http://guest:guest@localhost:15672 --json",
    ),
)
def list_(
    management: ManagementUrl = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the super streams of the virtual host.

    The stream protocol has no command for this, so the list comes from RabbitMQ's management API:
    at --management, or on port 15672 (15671 for TLS) of the broker's host, if it is that broker's.
    """


@app.command(
    "list-partitions",
    epilog=examples(
        "flowstream super-streams list-partitions orders",
        "flowstream super-streams list-partitions orders --json",
    ),
)
def list_partitions(super_stream: Name, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the partitions of a super stream in order, with their offsets and nodes."""


@app.command(
    epilog=examples(
        "flowstream super-streams route orders customer-42",
        "flowstream super-streams route orders eu us --json",
    )
)
def route(
    super_stream: Name,
    keys: Annotated[list[str], typer.Argument(metavar="KEY", help="One or more keys.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show the partition of a key: by its hash, and by the bindings of routing keys.

    Publishers use the hash unless they are configured to route by key.
    """
