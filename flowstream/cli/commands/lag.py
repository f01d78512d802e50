"""`flowstream lag`: how far readers are behind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import streams_of
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json
from flowstream.cli.output.tables import print_rows
from flowstream.cli.pipelines.load import load_target
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.cli.readers.position import Position, position_of
from flowstream.texts import plural

COLUMNS = ["stream", "reference", "offset", "last_offset", "lag", "lag_seconds", "lost"]


@dataclass(frozen=True, slots=True)
class Reader:
    """A reference, the stream or super stream that it reads, and the options of its filter."""

    reference: str
    stream: str
    options: Mapping[str, Any] = field(default_factory=dict)


def lag(
    stream: str | None,
    references: list[str] | None,
    *,
    pipeline: list[str] | None,
    fail_above: int | None,
    fail_above_seconds: float | None,
    url: str,
    json: bool,
) -> None:
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
        _explain(found, None if references else stream)
    for it in found:
        if it.beyond:
            note(it.beyond)
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


def _explain(found: list[Position], stream: str | None) -> None:
    """Notes on what the table does not show. `stream` was given without a reference."""
    for reference in sorted({it.reference for it in found}):
        mine = [it for it in found if it.reference == reference]
        if all(it.offset is None for it in mine):
            advice = (
                "; give the name of a pipeline after the stream: "
                f"flowstream lag {shlex.quote(stream)} PIPELINE"
                if stream is not None
                else ""
            )
            note(f"nothing is stored under {reference!r}, so its lag is the whole stream{advice}")
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
