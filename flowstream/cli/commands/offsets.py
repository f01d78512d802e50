"""`flowstream offsets get|set|forget|reset`: where the readers of a stream continue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

import typer

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import require_stream, streams_of
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say
from flowstream.cli.output.progress import doing
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import Json, ManagementUrl, Url, Yes, confirm
from flowstream.cli.parser.parsing import parse_address, parse_offset
from flowstream.cli.readers.active_readers import ReaderQuery, running_reader
from flowstream.cli.readers.position import (
    OffsetChange,
    change_of,
    holds,
    moved,
    position_of,
    skips,
)
from flowstream.client import DEFAULT_URL, Address, Environment, Offset

app: Final = new_app(
    "offsets",
    "Show, set, reset and forget stored offsets: the last messages that readers settled.",
    examples("flowstream offsets get orders orders", "flowstream offsets set orders orders 41999"),
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
    rows = run_async(_get, url, reference, stream)
    if json:
        print_json(rows[0] if [row["stream"] for row in rows] == [stream] else rows)
    else:
        columns = ["reference", "stream", "offset", "first_offset", "last_offset", "lag"]
        print_rows(rows, columns, empty="")


async def _get(url: str, reference: str, stream: str) -> list[dict[str, Any]]:
    async with connect(url) as environment:
        streams = await streams_of(environment, stream)
        return [(await position_of(environment, reference, it)).row() for it in streams]


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
    row = run_async(_set, url, reference, stream, offset)
    if json:
        print_json(row)
    else:
        say(moved(reference, stream, row["before"], offset))
    if row["skipped"]:
        note(skips(reference, stream, row["before"], offset + 1, row["skipped"]))


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
    rows = run_async(_get, url, reference, stream)
    known = [row for row in rows if row["offset"] is not None]
    if not json:
        print_rows(known, ["reference", "stream", "offset"], empty="nothing is stored")
    if known:
        confirm(f"Forget the stored offset of {reference}?", yes=yes)
        run_async(_forget, url, reference, [row["stream"] for row in known])
    if json:
        print_json([{**row, "forgotten": True} for row in known])
    elif known:
        say(f"forgotten: {reference} starts at its offset= again")


async def _forget(url: str, reference: str, streams: list[str]) -> None:
    async with connect(url) as environment:
        for stream in streams:
            await environment.forget_offset(reference, stream)


async def _set(url: str, reference: str, stream: str, offset: int) -> dict[str, Any]:
    async with connect(url) as environment:
        await require_stream(
            environment,
            stream,
            "offsets differ between partitions: name one partition, or move the reader in all with "
            f"flowstream offsets reset {reference} {stream} --to first|last|next|TIME",
        )
        before = await environment.query_offset(reference, stream)
        first = (await environment.stream_stats(stream)).first_offset or 0
        last = await environment.last_offset(stream)
        end = first if last is None else last + 1
        if offset >= end:
            raise CommandError(
                f"{stream} {holds(first, end)}, so offset {offset:,} cannot be settled; to "
                "continue "
                f"with the next published message: flowstream offsets reset {reference} {stream} "
                "--to next",
                ExitCode.INPUT,
            )
        change = change_of(stream, reference, before, offset + 1, first)
        await environment.store_offset_verified(reference, stream, offset, keep=before is None)
    return {
        "stream": stream,
        "reference": reference,
        "before": before,
        "offset": offset,
        "last_offset": last,
        "again": change.again,
        "skipped": change.skipped,
    }


# -- reset

COLUMNS = ["stream", "offset", "goes_on_with", "again", "skipped"]


@dataclass(frozen=True, slots=True)
class ResetRequest:
    """A reset to the position `to`, or by `by` offsets from the stored one."""

    url: str = field(repr=False)
    reference: str
    name: str
    to: Offset | None
    by: int | None
    monitors: tuple[Address, ...]
    management: str | None = field(repr=False)
    watch: float


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
    force: Annotated[
        bool, typer.Option("--force", help="Do not check whether the reader is running.")
    ] = False,
    http: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="HOST:PORT",
            parser=parse_address,
            help="The reader's monitor (--http of its run). Default: 127.0.0.1:9464. Repeatable.",
        ),
    ] = None,
    management: ManagementUrl = None,
    watch: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long to watch for commits of the reader."),
    ] = 6.0,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Move a reader to another message; for a super stream, in every partition.

    It shows what would be handled again or skipped, asks, stores, and reads back. It refuses while
    the reader is running: a pipeline reads its offset only when it starts, and would store its own
    over this one. A running reader is detected by its monitor (--http), by the consumers in the
    broker's management API, and by its commits. An idle reader is not detected if neither monitor
    nor API answers: stop it first. Times and "last" mean the beginning of a chunk.
    """
    if (to is None) == (by is None):
        raise CommandError("give either --to OFFSET or --by N", ExitCode.USAGE)
    monitors = tuple(Address(*each) for each in http or ())
    request = ResetRequest(url, reference, stream, to, by, monitors, management, watch)
    changes = run_async(_plan, request, force or dry_run)
    if not json:
        print_rows([asdict(change) for change in changes], COLUMNS, empty="")
        for it in changes:
            if it.skipped:
                note(skips(it.reference, it.stream, it.offset, it.goes_on_with, it.skipped))
    if not dry_run:
        confirm(f"Store this for {reference}?", yes=yes)
        run_async(_store, url, changes)
    if json:
        print_json([{**asdict(change), "stored": not dry_run} for change in changes])
    elif not dry_run:
        for it in changes:
            say(moved(reference, it.stream, it.offset, it.goes_on_with - 1))


async def _plan(request: ResetRequest, unchecked: bool) -> list[OffsetChange]:
    async with connect(request.url) as environment:
        streams = await streams_of(environment, request.name)
        if not unchecked:
            await _refuse_while_running(environment, request, streams)
        return [await _change(environment, request, stream) for stream in streams]


async def _refuse_while_running(
    environment: Environment, request: ResetRequest, streams: list[str]
) -> None:
    query = ReaderQuery(
        *(request.url, request.reference, request.name, tuple(streams), request.monitors),
        management=request.management,
        watch=request.watch,
    )
    with doing(f"checking whether {request.reference} is running"):
        answer = await running_reader(environment, query)
    if answer.seen is not None:
        raise CommandError(
            f"{answer.seen}; stop it first, or it stores its own offset over this one (--force "
            "overrides)",
            ExitCode.IN_USE,
        )
    if answer.blind:
        note(
            f"no running reader was found, but an idle one cannot be detected: {answer.blind}; "
            "stop "
            "the reader first, or give its monitor with --http, or the API with --management"
        )
    else:
        note(f"no running reader was found (asked {answer.asked})")


async def _change(environment: Environment, request: ResetRequest, stream: str) -> OffsetChange:
    stored = await environment.query_offset(request.reference, stream)
    first = (await environment.stream_stats(stream)).first_offset or 0
    last = await environment.last_offset(stream)
    end = first if last is None else last + 1
    if request.by is not None:
        if stored is None:
            raise CommandError(
                f"--by needs a stored offset, and nothing is stored under {request.reference!r} on "
                f"{stream}; use --to",
                ExitCode.INPUT,
            )
        target = min(max(stored + 1 + request.by, first), end)
    else:
        assert request.to is not None
        target = await _resolve(environment, request, stream, request.to, (first, end))
    return change_of(stream, request.reference, stored, target, first)


async def _resolve(
    environment: Environment,
    request: ResetRequest,
    stream: str,
    place: Offset,
    bounds: tuple[int, int],
) -> int:
    first, end = bounds
    if place == "first":
        return first
    if place == "next":
        return end
    if not isinstance(place, int):
        return min(max(first, await environment.resolve_offset(stream, place)), end)
    if stream != request.name:
        raise CommandError(
            f"{request.name} is a super stream, and offsets differ between its partitions; name a "
            f"partition (such as {stream}), or give a time",
            ExitCode.USAGE,
        )
    if not first <= place <= end:
        raise CommandError(
            f"{stream} {holds(first, end)}, so a reader cannot continue with {place:,}",
            ExitCode.INPUT,
        )
    return place


async def _store(url: str, changes: list[OffsetChange]) -> None:
    async with connect(url) as environment:
        for it in changes:
            await environment.store_offset_verified(
                it.reference, it.stream, it.goes_on_with - 1, keep=it.offset is None
            )
