"""`flowstream dead-letters list|show|replay|purge`: arguments, options and help."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, Url, Yes
from flowstream.cli.parser.parsing import parse_pattern

app: Final = new_app(
    "dead-letters",
    "List, show and replay messages that failed.",
    examples(
        "flowstream dead-letters list orders.dead",
        "flowstream dead-letters show orders.dead 12",
        "flowstream dead-letters replay orders.dead --dry-run",
        "flowstream dead-letters replay orders.dead",
    ),
    work="flowstream.cli.commands.dead_letters",
)

Stream = Annotated[str, typer.Argument(help="The dead-letter stream.")]
Reason = Annotated[
    re.Pattern[str] | None,
    typer.Option(
        metavar="REGEX", parser=parse_pattern, help="Only dead letters whose reason matches."
    ),
]


@app.command(
    "list",
    epilog=examples(
        "flowstream dead-letters list orders.dead",
        "flowstream dead-letters list orders.dead --reasons",
        "flowstream dead-letters list orders.dead --reason amount --all --json",
    ),
)
def list_(
    stream: Stream,
    *,
    reason: Reason = None,
    reasons: Annotated[
        bool,
        typer.Option("--reasons", help="Count dead letters by pipeline, phase and reason instead."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Include dead letters that were already replayed.")
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List dead letters that were not replayed yet, with their origin and reason."""


@app.command(
    epilog=examples(
        "flowstream dead-letters show orders.dead 12",
        "flowstream dead-letters show orders.dead 12 --json",
    )
)
def show(
    stream: Stream,
    offset: Annotated[
        int, typer.Argument(min=0, help="The offset of the dead letter, as shown by list.")
    ],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show one dead letter completely: body, origin, reason and traceback."""


@app.command(
    epilog=examples(
        "flowstream dead-letters replay orders.dead --dry-run",
        "flowstream dead-letters replay orders.dead",
        "flowstream dead-letters replay orders.dead --offset 12 --offset 13",
        "flowstream dead-letters replay orders.dead --to orders.retry",
    )
)
def replay(
    stream: Stream,
    *,
    offset: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="Only this dead letter, even if it was replayed before. Repeatable."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="STREAM", help="Publish to this stream instead of the original one."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="If --to is a super stream: the field that selects the partition.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be replayed, and do nothing.")
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish the original messages again, byte for byte, to their original streams.

    Each dead letter is replayed once. The next replay continues after the last one, and the broker
    drops messages that a killed replay had already published. Dead letters that arrive meanwhile
    are left to the next replay. Dead letters stay in their stream until purge deletes them.

    A body that was too large for its dead letter is read from the original stream. A dead letter
    that cannot be replayed, because its original is gone or too large for a frame, is reported and
    skipped.
    """


@app.command(epilog=examples("flowstream dead-letters purge orders.dead"))
def purge(
    stream: Stream,
    *,
    yes: Yes = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also delete dead letters that were never replayed.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete all dead letters: the stream is deleted and created again, without its limits.

    First stop the pipeline that writes to it.
    """
