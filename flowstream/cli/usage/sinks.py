"""`flowstream sinks init|list|reset`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import (
    Force,
    Json,
    ManagementUrl,
    RunAddresses,
    Url,
    Watch,
    Yes,
)

app: Final = new_app(
    "sinks",
    "Create the tables and directories of sinks, show what they have written, or forget it.",
    examples(
        "flowstream sinks init pipelines.orders",
        "flowstream sinks list pipelines.orders",
        "flowstream sinks reset pipelines.orders",
    ),
    work="flowstream.cli.commands.sinks",
)

Targets = Annotated[
    list[str], typer.Argument(metavar="MODULE[:NAME]", help="Modules with pipelines.")
]


@app.command(
    epilog=examples(
        "flowstream sinks init pipelines.orders",
        "flowstream sinks init pipelines.orders:archive --json",
    )
)
def init(targets: Targets, *, json: Json = False) -> None:
    """Create the tables and directories that sinks write to, where they do not exist.

    For a database, it creates the table, with a column for each field, and the table of offsets.
    For files, it creates the directory and checks that its file system can be used. What exists is
    checked, and not changed. Streams are created by `flowstream run --create`.
    """


@app.command(
    "list",
    epilog=examples(
        "flowstream sinks list pipelines.orders",
        "flowstream sinks list pipelines.orders pipelines.feed --json",
    ),
)
def list_(targets: Targets, *, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the sinks of pipelines: guarantee, destination, and what is written of each stream.

    `written` are the offsets whose messages are in the destination, and `last_written` is the
    highest. `committed` is the stored offset of the pipeline, which may be behind: what is written
    above it is skipped when it comes again. Sinks that are not exactly once keep no record.

    Of what is published to streams exactly once, the broker is asked: a row for each stream that is
    read and each that is written has the offset of the last message that was published. The dead
    letters of a pipeline are shown as `dead-letters`.
    """


@app.command(
    epilog=examples(
        "flowstream sinks reset pipelines.orders",
        "flowstream sinks reset pipelines.orders --sink load --stream orders --yes",
    )
)
def reset(
    targets: Targets,
    *,
    sink: Annotated[
        str | None, typer.Option("--sink", metavar="NAME", help="Only this sink. Default: all.")
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            "--stream", metavar="NAME", help="Only of this stream or super stream. Default: all."
        ),
    ] = None,
    yes: Yes = False,
    force: Force = False,
    http: RunAddresses = None,
    management: ManagementUrl = None,
    watch: Watch = 6.0,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Forget what sinks have written, so that it is written again when it comes again.

    Rows and files stay as they are: remove them first if they must not be there twice. Only the
    record of what is written is deleted, under the reference of the sink. The stored offset of the
    pipeline stays, too: `flowstream offsets reset` moves it back. What was published to a stream
    cannot be forgotten: give that sink another `reference`. It refuses while the pipeline is
    running, which is detected as by `flowstream offsets reset`.
    """
