"""`flowstream lag`: how far readers are behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import streams_of
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, Url
from flowstream.cli.pipelines.load import load_target
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.cli.readers.position import Position, position_of
from flowstream.client import DEFAULT_URL
from flowstream.texts import plural

COLUMNS = ["stream", "reference", "offset", "last_offset", "lag", "lag_seconds", "lost"]


@dataclass(frozen=True, slots=True)
class Reader:
    """A reference, the stream or super stream that it reads, and the options of its filter."""

    reference: str
    stream: str
    options: Mapping[str, Any] = field(default_factory=dict)


app: Final = new_app()


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
    readers = [Reader(each, stream) for each in references or [stream]] if stream else []
    for target in pipeline or []:
        readers += _readers(target)
    if not readers:
        raise CommandError("give a stream, or --pipeline MODULE", ExitCode.USAGE)
    found = run_async(_positions, url, readers)
    rows = [position.row() for position in found]
    if json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, empty="")
        _explain(found)
    _fail(found, fail_above, fail_above_seconds)


def _readers(target: str) -> list[Reader]:
    readers = [
        Reader(found.reference, stream, found.filter_options)
        for found in map(topology_of, load_target(target).values())
        for stream in found.reads
    ]
    if not readers:
        raise CommandError(f"{target}: its pipelines read no known stream", ExitCode.USAGE)
    return readers


async def _positions(url: str, readers: list[Reader]) -> list[Position]:
    async with connect(url) as environment:
        return [
            await position_of(environment, reader.reference, stream, reader.options)
            for reader in readers
            for stream in await streams_of(environment, reader.stream)
        ]


def _explain(found: list[Position]) -> None:
    """Notes on what the table does not show."""
    for reference in sorted({it.reference for it in found}):
        mine = [it for it in found if it.reference == reference]
        if all(it.offset is None for it in mine):
            note(f"nothing is stored under {reference!r}, so its lag is the whole stream")
        elif len(mine) > 1:
            note(f"{reference}: {plural(sum(it.lag for it in mine), 'message')} behind in total")


def _fail(found: list[Position], most: int | None, oldest: float | None) -> None:
    """Raise CommandError if a reader is too far behind."""
    for it in found:
        who = f"{it.reference} is {plural(it.lag, 'message')} behind on {it.stream}"
        if most is not None and it.lag > most:
            allowed = f"{most:,} {'is' if most == 1 else 'are'} allowed"
            raise CommandError(f"{who}, but only {allowed}", ExitCode.LAG)
        if oldest is not None and it.lag and (it.lag_seconds is None or it.lag_seconds > oldest):
            age = "of unknown age" if it.lag_seconds is None else f"{it.lag_seconds:,.1f} s old"
            raise CommandError(
                f"{who}, the oldest {age}, but only {oldest:g} s are allowed", ExitCode.LAG
            )
