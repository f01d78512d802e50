"""`flowstream lag`: arguments, options and help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from flowstream.cli.configuration.options import DEFAULT_URL
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, Url

app: Final = new_app(work="flowstream.cli.commands.lag")


@app.command(
    epilog=examples(
        "flowstream lag orders",
        "flowstream lag orders billing audit --json",
        "flowstream lag --pipeline pipelines.orders",
        "flowstream lag orders --fail-above 10000 --fail-above-seconds 60",
    )
)
def lag(
    stream: Annotated[
        str | None, typer.Argument(help="The stream or super stream.", show_default=False)
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REFERENCE",
            help="The readers; a pipeline's reference is its name. Default: the stream's name.",
            show_default=False,
        ),
    ] = None,
    *,
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE[:NAME]",
            help="The streams and references of the module's pipelines. Repeatable.",
        ),
    ] = None,
    fail_above: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="End with exit code 30 if the lag is above so many messages."
        ),
    ] = None,
    fail_above_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="The same for the age of the oldest message, in seconds."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show how far readers are behind, in messages and in seconds, for each partition.

    The lag counts published messages after the stored offset, so a pipeline that keeps up shows
    what arrived since its last commit. Seconds are the age of the oldest of these messages. "lost"
    counts messages that retention deleted before they were settled. Messages that a filter leaves
    out count until the pipeline has passed them, or not at all with --pipeline.
    """
