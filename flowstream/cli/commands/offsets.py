"""`flowstream offsets get|set|forget`: where a reader of a stream goes on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, print_rows, say
from flowstream.cli.parser.options import (
    DEFAULT_URL,
    Json,
    Url,
    Yes,
    confirm,
    examples,
    new_app,
    run_async,
)
from flowstream.texts import plural

app = new_app(
    "offsets",
    "Show, set and forget stored offsets: the last message a reader has settled.",
    examples("flowstream offsets get orders orders", "flowstream offsets set orders orders 41999"),
)

Stream = Annotated[str, typer.Argument(help="The stream.")]
Reference = Annotated[
    str, typer.Argument(help="Whose offset; a pipeline stores under its own name.")
]


@app.command(
    epilog=examples(
        "flowstream offsets get orders orders", "flowstream offsets get orders orders --json"
    )
)
def get(reference: Reference, stream: Stream, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the stored offset, and how far it is from the stream's end.

    It is the last settled message's; -1 means that not even offset 0 is settled. Of a super stream
    every partition is shown (in JSON as a list).
    """
    rows = run_async(_get, url, reference, stream)
    if json:
        print_json(rows[0] if [row["stream"] for row in rows] == [stream] else rows)
    else:
        columns = ["reference", "stream", "offset", "first_offset", "last_offset", "lag"]
        print_rows(rows, columns, empty="")


async def _get(url: str, reference: str, stream: str) -> list[dict[str, Any]]:
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import standing, streams_of

    async with connect(url) as environment:
        streams = await streams_of(environment, stream)
        return [(await standing(environment, reference, it)).row() for it in streams]


@app.command(
    "set",
    epilog=examples(
        "flowstream offsets set orders orders 41999", "flowstream offsets set audit orders 0"
    ),
)
def set_(
    reference: Reference,
    stream: Stream,
    offset: Annotated[int, typer.Argument(min=0, help="The last offset to count as settled.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Store an offset: the reader goes on with the message after it.

    Says how many offsets that are skipped unhandled, and refuses one behind the stream's end. To
    pass over single messages, use `flowstream run ... --discard STREAM@OFFSET` instead.
    A reader that runs now keeps its place and will store its own offset over this one.
    """
    row = run_async(_set, url, reference, stream, offset)
    if json:
        print_json(row)
    else:
        say(moved(reference, stream, row["before"], offset))
    if row["skipped"]:
        note(skips(reference, stream, row["before"], offset + 1, row["skipped"]))


def skips(reference: str, stream: str, before: int | None, goes_on_with: int, count: int) -> str:
    """That so many offsets are passed over which the reader has not handled."""
    begin = goes_on_with - count
    range_ = f"offset {begin:,}" if count == 1 else f"offsets {begin:,} to {goes_on_with - 1:,}"
    since = "" if before is not None else "; nothing was stored, so all from the first one count"
    return (
        f"{reference} skips up to {plural(count, 'message')} of {stream} that it has not handled "
        f"({range_}; a few offsets are records of the broker's own{since})"
    )


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
    """Give up a reader's reference: it begins at its offset= again, as one that is new.

    A pipeline's offset is remembered for good. RabbitMQ has no command that deletes one, so 0 is
    stored under it, which counts as nothing stored, and RabbitMQ drops it when retention next
    removes messages of the stream. A reader that runs now stores its offset again.
    """
    rows = run_async(_get, url, reference, stream)
    known = [row for row in rows if row["offset"] is not None]
    if not json:
        print_rows(known, ["reference", "stream", "offset"], empty="nothing is stored")
    if known:
        confirm(f"Forget where {reference} goes on?", yes=yes)
        run_async(_forget, url, reference, [row["stream"] for row in known])
    if json:
        print_json([{**row, "forgotten": True} for row in known])
    elif known:
        say(f"forgotten: {reference} begins at its offset= again")


async def _forget(url: str, reference: str, streams: list[str]) -> None:
    from flowstream.cli.connection.connect import connect

    async with connect(url) as environment:
        for stream in streams:
            await environment.forget_offset(reference, stream)


def holds(first: int, end: int) -> str:
    """What a stream has, whose next message gets the offset `end`."""
    return f"holds {first:,} to {end - 1:,}" if end > first else "is empty"


def moved(reference: str, stream: str, before: int | None, offset: int) -> str:
    """What storing an offset changed, in a line."""
    old = "none" if before is None else f"{before:,}"
    return f"{reference} on {stream}: {old} -> {offset:,}; it goes on with offset {offset + 1:,}"


async def _set(url: str, reference: str, stream: str, offset: int) -> dict[str, Any]:
    from flowstream.cli.commands.offsets_reset import move
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import require_stream

    async with connect(url) as environment:
        await require_stream(
            environment,
            stream,
            "offsets differ between partitions: set one partition's, or move the reader in all "
            f"with flowstream offsets reset {reference} {stream} --to first|last|next|TIME",
        )
        before = await environment.query_offset(reference, stream)
        first = (await environment.stream_stats(stream)).first_offset or 0
        last = await environment.last_offset(stream)
        end = first if last is None else last + 1
        if offset >= end:
            raise CommandError(
                f"{stream} {holds(first, end)}, so nobody can have settled offset {offset:,}; to "
                f"go on with the next message that is published: flowstream offsets reset "
                f"{reference} {stream} --to next",
                ExitCode.INPUT,
            )
        change = move(stream, reference, before, offset + 1, first)
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
