"""`flowstream offsets reset`: a reader goes on somewhere else; shown first, never as it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.commands.offsets import Reference, Stream, holds, moved, skips
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, print_rows, say
from flowstream.cli.output.progress import doing
from flowstream.cli.parser.options import (
    DEFAULT_URL,
    Json,
    ManagementUrl,
    Url,
    Yes,
    confirm,
    examples,
    run_async,
)
from flowstream.cli.parser.parsing import parse_place

if TYPE_CHECKING:
    from flowstream.client import Environment, Offset

COLUMNS = ["stream", "offset", "goes_on_with", "again", "skipped"]


@dataclass(frozen=True, slots=True)
class Move:
    """What a reset changes in one stream: from the stored `offset` (None: nothing stored) to
    going on with `goes_on_with`, which handles `again` offsets a second time or skips `skipped`.
    """

    stream: str
    reference: str
    offset: int | None
    goes_on_with: int
    again: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for: `to` a place, or `by` so many offsets from where the reader stands."""

    url: str = field(repr=False)
    reference: str
    name: str
    to: str | None
    by: int | None
    monitors: tuple[str, ...]
    management: str | None = field(repr=False)
    watch: float


def register(app: typer.Typer) -> None:
    """Add the command to `flowstream offsets`."""
    app.command(
        epilog=examples(
            "flowstream offsets reset orders orders --to first",
            "flowstream offsets reset orders orders --to 2026-11-23T09:00 --dry-run",
            "flowstream offsets reset orders orders --to 2h --yes",
            "flowstream offsets reset orders orders --by -1000",
        )
    )(reset)


def reset(
    reference: Reference,
    stream: Stream,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="first, last, next, the offset to go on with, a time (2026-11-23T09:00), or an "
            "age (30m, 2h, 7d).",
        ),
    ] = None,
    by: Annotated[
        int | None, typer.Option(metavar="N", help="So many messages on, or back with -N.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and do nothing.")
    ] = False,
    yes: Yes = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while the reader runs, unseen or not.")
    ] = False,
    http: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the reader's monitor would be (--http of the run); else "
            "127.0.0.1:9464. Repeatable.",
        ),
    ] = None,
    management: ManagementUrl = None,
    watch: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to watch for commits.")
    ] = 6.0,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Let a reader go on with another message; of a super stream, in every partition.

    Shows what would be handled again or skipped, asks, stores and reads back. It refuses while the
    reader runs: a pipeline reads its offset when it starts, and would store its own over this one.
    A reader is seen by its monitor (--http), by the consumers that the broker's own management
    API lists, and by commits on every broker. One that is idle is not seen where neither a monitor
    nor that API answers: stop it first. Times and "last" lead to the beginning of a chunk.
    """
    if (to is None) == (by is None):
        raise CommandError("say where to: either --to PLACE or --by N", ExitCode.USAGE)
    if to is not None:
        parse_place("--to", to)
    monitors = tuple(http or ())
    wish = Wish(url, reference, stream, to, by, monitors, management, watch)
    moves = run_async(_plan, wish, force or dry_run)
    if not json:
        print_rows([asdict(move) for move in moves], COLUMNS, empty="")
        for it in moves:
            if it.skipped:
                note(skips(it.reference, it.stream, it.offset, it.goes_on_with, it.skipped))
    if not dry_run:
        confirm(f"Store this for {reference}?", yes=yes)
        run_async(_store, url, moves)
    if json:
        print_json([{**asdict(move), "stored": not dry_run} for move in moves])
    elif not dry_run:
        for it in moves:
            say(moved(reference, it.stream, it.offset, it.goes_on_with - 1))


async def _plan(wish: Wish, unchecked: bool) -> list[Move]:
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import streams_of

    async with connect(wish.url) as environment:
        streams = await streams_of(environment, wish.name)
        if not unchecked:
            await _refuse_while_running(environment, wish, streams)
        return [await _move(environment, wish, stream) for stream in streams]


async def _refuse_while_running(environment: Environment, wish: Wish, streams: list[str]) -> None:
    from flowstream.cli.commands.run import parse_address
    from flowstream.cli.readers.active_readers import Question, running_reader

    monitors = tuple(parse_address(text) for text in wish.monitors)
    question = Question(
        *(wish.url, wish.reference, wish.name, tuple(streams), monitors),
        management=wish.management,
        watch=wish.watch,
    )
    with doing(f"looking whether {wish.reference} runs"):
        answer = await running_reader(environment, question)
    if answer.seen is not None:
        raise CommandError(
            f"{answer.seen}; stop it first, or it stores its own offset over this one (--force "
            "does it all the same)",
            ExitCode.IN_USE,
        )
    if answer.blind:
        note(
            f"no reader was seen, but an idle one could not be looked for: {answer.blind}; stop "
            "the reader first, or say where to look with --http or --management"
        )
    else:
        note(f"no reader was seen (asked {answer.asked})")


async def _move(environment: Environment, wish: Wish, stream: str) -> Move:
    stored = await environment.query_offset(wish.reference, stream)
    first = (await environment.stream_stats(stream)).first_offset or 0
    last = await environment.last_offset(stream)
    end = first if last is None else last + 1
    if wish.by is not None:
        if stored is None:
            raise CommandError(
                f"nothing is stored under {wish.reference!r} on {stream}, so --by has nothing to "
                "count from; use --to",
                ExitCode.INPUT,
            )
        target = min(max(stored + 1 + wish.by, first), end)
    else:
        assert wish.to is not None
        place = parse_place("--to", wish.to)
        target = await _resolve(environment, wish, stream, place, (first, end))
    return move(stream, wish.reference, stored, target, first)


async def _resolve(
    environment: Environment, wish: Wish, stream: str, place: Offset, bounds: tuple[int, int]
) -> int:
    first, end = bounds
    if place == "first":
        return first
    if place == "next":
        return end
    if not isinstance(place, int):
        return min(max(first, await environment.resolve_offset(stream, place)), end)
    if stream != wish.name:
        raise CommandError(
            f"{wish.name} is a super stream, and offsets differ between its partitions: name one "
            f"(such as {stream}), or give a time",
            ExitCode.USAGE,
        )
    if not first <= place <= end:
        raise CommandError(
            f"{stream} {holds(first, end)}, so nobody can go on with {place:,}", ExitCode.INPUT
        )
    return place


def move(stream: str, reference: str, stored: int | None, target: int, first: int) -> Move:
    """What going on with `target` changes; where nothing is stored, the reader's own beginning
    counts as the `first` message. Pure."""
    before = first if stored is None else max(stored + 1, first)
    return Move(stream, reference, stored, target, max(0, before - target), max(0, target - before))


async def _store(url: str, moves: list[Move]) -> None:
    from flowstream.cli.connection.connect import connect

    async with connect(url) as environment:
        for it in moves:
            await environment.store_offset_verified(
                it.reference, it.stream, it.goes_on_with - 1, keep=it.offset is None
            )
