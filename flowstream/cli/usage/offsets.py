"""`flowstream offsets get|set|forget|reset`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Any, Final

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
from flowstream.cli.parser.parsing import parse_offset

app: Final = new_app(
    "offsets",
    "Show, set, reset and forget stored offsets: the last messages that readers settled.",
    examples("flowstream offsets get orders orders", "flowstream offsets set orders orders 41999"),
    work="flowstream.cli.commands.offsets",
)

Stream = Annotated[str, typer.Argument(help="The stream.")]
Reference = Annotated[str, typer.Argument(help="The reader; a pipeline's reference is its name.")]


@app.command(
    epilog=examples(
        "flowstream offsets get orders orders", "flowstream offsets get orders orders --json"
    )
)
def get(reference: Reference, stream: Stream, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the stored offset, and its distance from the end of the stream.

    It is the offset of the last settled message; -1 means that offset 0 is not settled. For a super
    stream, every partition is shown (in JSON as a list).
    """


@app.command(
    "set",
    epilog=examples(
        "flowstream offsets set orders orders 41999", "flowstream offsets set audit orders 0"
    ),
)
def set_(
    reference: Reference,
    stream: Stream,
    offset: Annotated[int, typer.Argument(min=0, help="The last settled offset.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Store an offset: the reader continues with the message after it.

    It says how many unhandled offsets are skipped, and refuses an offset after the end of the
    stream. To skip single messages, use `flowstream run ... --discard STREAM@OFFSET` instead.
    A running reader is not affected, and will store its own offset over this one.
    """


@app.command(
    epilog=examples(
        "flowstream offsets forget audit orders", "flowstream offsets forget audit orders --yes"
    )
)
def forget(
    reference: Reference,
    stream: Annotated[str, typer.Argument(help="The stream or super stream.")],
    *,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Forget a reader's stored offset: it starts at its offset= again, like a new reader.

    RabbitMQ has no command that deletes a stored offset. So 0 is stored, which counts as nothing
    stored, and RabbitMQ drops it when retention next deletes messages of the stream. A running
    reader stores its offset again.
    """


@app.command(
    epilog=examples(
        "flowstream offsets reset orders orders --to first",
        "flowstream offsets reset orders orders --to 2026-11-23T09:00 --dry-run",
        "flowstream offsets reset orders orders --to 2h --yes",
        "flowstream offsets reset orders orders --by -1000",
    )
)
def reset(
    reference: Reference,
    stream: Stream,
    *,
    to: Annotated[
        Any,
        typer.Option(
            metavar="OFFSET",
            parser=parse_offset,
            help="Where to continue: first, last, next, an offset, a time (2026-11-23T09:00), or "
            "an age (30m, 2h, 7d).",
        ),
    ] = None,
    by: Annotated[
        int | None, typer.Option(metavar="N", help="Move by so many messages; -N moves back.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and do nothing.")
    ] = False,
    yes: Yes = False,
    force: Force = False,
    http: RunAddresses = None,
    management: ManagementUrl = None,
    watch: Watch = 6.0,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Move a reader to another message; for a super stream, in every partition.

    It shows what would be handled again or skipped, asks, stores, and reads back. It refuses while
    the reader is running: a pipeline reads its offset only when it starts, and would store its own
    over this one. A running reader is detected by its live page (--http), by the consumers in the
    broker's management API, and by its commits. An idle reader is not detected if neither page
    nor API answers: stop it first. Times and "last" mean the beginning of a chunk.
    """
