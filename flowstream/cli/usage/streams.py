"""`flowstream streams create|delete|list|stats`: arguments, options and help."""

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
    "streams",
    "Create, delete, list and inspect streams.",
    examples(
        "flowstream streams create orders --max-age 7d",
        "flowstream streams stats orders orders.dead",
        "flowstream streams list",
        "flowstream streams delete orders",
    ),
    work="flowstream.cli.commands.streams",
)

Names = Annotated[list[str], typer.Argument(metavar="STREAM", help="One or more streams.")]


@app.command(
    epilog=examples(
        "flowstream streams create orders",
        "flowstream streams create orders --max-bytes 20GB --max-age 7d",
        "flowstream streams create orders orders.dead --if-missing",
    )
)
def create(
    streams: Names,
    *,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    segment_bytes: SegmentBytes = None,
    if_missing: IfMissing = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create streams.

    Without limits a stream keeps everything. Retention deletes whole segments (500 MB by default),
    so a small limit needs small segments.
    """


@app.command(
    epilog=examples(
        "flowstream streams delete orders", "flowstream streams delete orders --yes --if-exists"
    )
)
def delete(
    streams: Names,
    yes: Yes = False,
    if_exists: IfExists = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also delete single partitions of super streams.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete streams with all their messages and stored offsets.

    A partition of a super stream is refused: flowstream super-streams delete deletes all of them.
    """


@app.command(
    "list",
    epilog=examples(
        "flowstream streams list",
        "flowstream streams list --management http://guest:guest@localhost:15672 --json",
    ),
)
def list_(
    management: ManagementUrl = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the streams of the virtual host.

    The stream protocol has no command for this, so the list comes from RabbitMQ's management API:
    at --management, or on port 15672 (15671 for TLS) of the broker's host, if it is that broker's.
    Its message counts are a few seconds old; flowstream streams stats is exact.
    """


@app.command(
    epilog=examples("flowstream streams stats orders", "flowstream streams stats orders --json")
)
def stats(streams: Names, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the first and last offset of streams, and the nodes that have them.

    For a super stream, every partition is shown.
    """
