"""`flowstream lag`: is it keeping up?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, print_rows
from flowstream.cli.parser.options import DEFAULT_URL, Json, Url, examples, run_async
from flowstream.texts import plural

if TYPE_CHECKING:
    from flowstream.cli.readers.position import Standing

COLUMNS = ["stream", "reference", "offset", "last_offset", "lag", "lag_seconds", "lost"]


@dataclass(frozen=True, slots=True)
class Reader:
    """A reference, the stream or super stream it reads, and the options of its filter."""

    reference: str
    stream: str
    options: Mapping[str, Any] = field(default_factory=dict)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream lag orders",
            "flowstream lag orders billing audit --json",
            "flowstream lag --pipeline pipelines.orders",
            "flowstream lag orders --fail-above 10000 --fail-above-seconds 60",
        )
    )(lag)


def lag(
    stream: Annotated[
        str | None, typer.Argument(help="The stream or super stream.", show_default=False)
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REFERENCE",
            help="Whose lag; a pipeline stores under its own name. Without one: the stream's name.",
            show_default=False,
        ),
    ] = None,
    *,
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE[:NAME]",
            help="What the module's pipelines read, under their names. Repeatable.",
        ),
    ] = None,
    fail_above: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="End with exit code 30 above so many messages."),
    ] = None,
    fail_above_seconds: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="The same for the age of the oldest of them."),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show how far readers are behind, in messages and in seconds, for each partition.

    The lag is what was published and is not settled and committed yet, so a pipeline that keeps up
    shows what arrived since its last commit. Seconds are the age of the oldest message of it.
    "lost" counts messages that retention deleted before they were settled. Messages that a filter
    leaves out count only until the pipeline has passed them, and with --pipeline not at all.
    """
    readers = [Reader(each, stream) for each in references or [stream]] if stream else []
    for target in pipeline or []:
        readers += _readers(target)
    if not readers:
        raise CommandError("name a stream, or --pipeline MODULE", ExitCode.USAGE)
    found = run_async(_standings, url, readers)
    rows = [standing.row() for standing in found]
    if json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, empty="")
        _explain(found)
    _fail(found, fail_above, fail_above_seconds)


def _readers(target: str) -> list[Reader]:
    from flowstream.cli.pipelines.load import load_target
    from flowstream.cli.pipelines.stream_topology import wiring

    readers = [
        Reader(found.reference, stream, found.passing)
        for found in map(wiring, load_target(target).values())
        for stream in found.reads
    ]
    if not readers:
        raise CommandError(f"{target} reads no stream that is known", ExitCode.USAGE)
    return readers


async def _standings(url: str, readers: list[Reader]) -> list[Standing]:
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import standing, streams_of

    async with connect(url) as environment:
        return [
            await standing(environment, reader.reference, stream, reader.options)
            for reader in readers
            for stream in await streams_of(environment, reader.stream)
        ]


def _explain(found: list[Standing]) -> None:
    """What a table leaves open."""
    for reference in sorted({it.reference for it in found}):
        mine = [it for it in found if it.reference == reference]
        if all(it.offset is None for it in mine):
            note(f"nothing is stored under {reference!r}: its lag is all there is")
        elif len(mine) > 1:
            note(f"{reference}: {plural(sum(it.lag for it in mine), 'message')} behind in all")


def _fail(found: list[Standing], most: int | None, oldest: float | None) -> None:
    """End with an exit code of its own where somebody is too far behind."""
    for it in found:
        who = f"{it.reference} is {plural(it.lag, 'message')} behind on {it.stream}"
        if most is not None and it.lag > most:
            allowed = f"{most:,} {'is' if most == 1 else 'are'} allowed"
            raise CommandError(f"{who}, and {allowed}", ExitCode.LAG)
        if oldest is not None and it.lag and (it.lag_seconds is None or it.lag_seconds > oldest):
            age = "of unknown age" if it.lag_seconds is None else f"{it.lag_seconds:,.1f} s old"
            raise CommandError(
                f"{who}, the oldest {age}, and {oldest:g} s are allowed", ExitCode.LAG
            )
