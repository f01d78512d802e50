"""`flowstream offsets get|set|forget|reset`: where the readers of a stream continue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import require_stream, streams_of
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.options import confirm
from flowstream.cli.readers.active_readers import ReaderQuery, refuse_running
from flowstream.cli.readers.position import (
    OffsetChange,
    Position,
    change_of,
    holds,
    moved,
    position_of,
    skips,
)
from flowstream.client import Address, Environment, Offset


def get(reference: str, stream: str, url: str, json: bool) -> None:
    found = run_async(_get, url, reference, stream)
    rows = [position.row() for position in found]
    if json:
        print_json(rows[0] if [row["stream"] for row in rows] == [stream] else rows)
    else:
        columns = ["reference", "stream", "offset", "first_offset", "last_offset", "lag"]
        print_rows(rows, columns, empty="")
    for position in found:
        if position.beyond:
            note(position.beyond)


async def _get(url: str, reference: str, stream: str) -> list[Position]:
    async with connect(url) as environment:
        streams = await streams_of(environment, stream)
        return [await position_of(environment, reference, it) for it in streams]


def set_(reference: str, stream: str, offset: int, url: str, json: bool) -> None:
    row = run_async(_set, url, reference, stream, offset)
    if json:
        print_json(row)
    else:
        say(moved(reference, stream, row["before"], offset))
    if row["skipped"]:
        note(skips(reference, stream, row["before"], offset + 1, row["skipped"]))


def forget(reference: str, stream: str, *, yes: bool, url: str, json: bool) -> None:
    found = run_async(_get, url, reference, stream)
    known = [position.row() for position in found if position.offset is not None]
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
                f"continue with the next published message: flowstream offsets reset {reference} "
                f"{stream} --to next",
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


def reset(
    reference: str,
    stream: str,
    *,
    to: Any,
    by: int | None,
    dry_run: bool,
    yes: bool,
    force: bool,
    http: list[Any] | None,
    management: str | None,
    watch: float,
    url: str,
    json: bool,
) -> None:
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
            query = ReaderQuery(
                *(request.url, request.reference, request.name, tuple(streams), request.monitors),
                management=request.management,
                watch=request.watch,
            )
            await refuse_running(environment, query, "it stores its own offset over this one")
        return [await _change(environment, request, stream) for stream in streams]


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
