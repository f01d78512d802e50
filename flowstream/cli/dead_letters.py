"""`flowstream dead-letters list|show|replay|purge`: what failed, why, and back into its stream.

Replay goes on where the last one ended: its position is stored as an offset of the dead-letter
stream, after the broker has confirmed what was replayed. A replay that is killed in between repeats
at most what was not stored yet.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.letters import Letter
from flowstream.cli.options import (
    DEFAULT_URL,
    Json,
    Url,
    confirm,
    examples,
    new_app,
    pattern,
    run_async,
)
from flowstream.cli.output import note, plural, print_json, print_rows, say

if TYPE_CHECKING:
    from flowstream.client import Environment

REFERENCE = "flowstream-replay"
"""The reference that a replay's position is stored under."""

app = new_app(
    "dead-letters",
    "Look at messages that failed for good, and replay them.",
    examples(
        "flowstream dead-letters list orders.dead",
        "flowstream dead-letters show orders.dead 12",
        "flowstream dead-letters replay orders.dead --dry-run",
        "flowstream dead-letters replay orders.dead",
    ),
)

Stream = Annotated[str, typer.Argument(help="The dead-letter stream.")]
Reason = Annotated[
    str | None, typer.Option(metavar="REGEX", help="Only letters whose reason matches.")
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
        bool, typer.Option("--reasons", help="Count them by pipeline, phase and reason instead.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were replayed already.")
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List dead letters that were not replayed yet: where they come from, and why they failed."""
    letters = run_async(_collect, url, stream, pattern(reason), everything)
    rows = _by_reason(letters) if reasons else [letter.row() for letter in letters]
    columns = ["letters", "pipeline", "stage", "phase", "reason"] if reasons else [*Letter.COLUMNS]
    if json:
        print_json(rows)
    else:
        print_rows(rows, columns, empty=f"no dead letter of {stream} waits")


def _by_reason(letters: list[Letter]) -> list[dict[str, Any]]:
    counts = Counter((it.pipeline, it.stage, it.phase, it.reason) for it in letters)
    return [
        {"letters": count, "pipeline": pipeline, "stage": stage, "phase": phase, "reason": reason}
        for (pipeline, stage, phase, reason), count in counts.most_common()
    ]


async def _collect(
    url: str, stream: str, wanted: re.Pattern[str] | None, everything: bool
) -> list[Letter]:
    from flowstream.cli.connect import connect

    async with connect(url) as environment:
        start = 0 if everything else await _position(environment, stream)
        return [
            letter
            async for batch in read(environment, stream, start)
            for letter in batch
            if wanted is None or wanted.search(letter.reason)
        ]


@app.command(
    epilog=examples(
        "flowstream dead-letters show orders.dead 12",
        "flowstream dead-letters show orders.dead 12 --json",
    )
)
def show(
    stream: Stream,
    offset: Annotated[int, typer.Argument(min=0, help="Its offset, as list shows it.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show one dead letter whole: its body, its way and the traceback."""
    letter = run_async(_one, url, stream, offset)
    if json:
        print_json(letter.document())
    else:
        sys.stdout.write(letter.text() + "\n")


async def _one(url: str, stream: str, offset: int) -> Letter:
    from flowstream.cli.connect import connect

    async with connect(url) as environment:
        async for batch in read(environment, stream, offset):
            if batch and batch[0].offset == offset:
                return batch[0]
            break
    raise CommandError(f"{stream} has no dead letter at offset {offset}", ExitCode.INPUT)


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
        typer.Option(min=0, help="Only this letter, whether replayed before or not. Repeatable."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="STREAM", help="Into this stream instead of where it came from."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be replayed, and do nothing.")
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish the original messages again, byte for byte, into the streams they came from.

    Each letter is replayed once: the next replay goes on behind the last one. The letters stay in
    their stream; purge removes them.
    """
    counts = run_async(_replay, url, stream, sorted(set(offset or [])), to, dry_run)
    if json:
        print_json([{"stream": name, "messages": counts[name]} for name in sorted(counts)])
        return
    if not counts:
        say(f"nothing to replay: every dead letter of {stream} was replayed before")
    for name in sorted(counts):
        would = "would be replayed" if dry_run else "replayed and confirmed"
        say(f"{plural(counts[name], 'message')} {would} into {name}")


async def _replay(
    url: str, stream: str, offsets: list[int], to: str | None, dry_run: bool
) -> Counter[str]:
    from flowstream.cli.connect import connect

    counts: Counter[str] = Counter()
    async with connect(url) as environment:
        start = offsets[0] if offsets else await _position(environment, stream)
        async for batch in read(environment, stream, start):
            chosen = [it for it in batch if not offsets or it.offset in offsets]
            targets: dict[str, list[bytes]] = {}
            for letter in chosen:
                targets.setdefault(to or letter.source, []).append(letter.body)
            if not dry_run:
                await _publish(environment, targets)
                if not offsets and batch:
                    last = batch[-1].offset
                    await environment.store_offset_verified(REFERENCE, stream, last)
            counts.update({target: len(bodies) for target, bodies in targets.items()})
            if offsets and batch and batch[-1].offset >= offsets[-1]:
                break
    return counts


async def _publish(environment: Environment, targets: dict[str, list[bytes]]) -> None:
    for target, bodies in targets.items():
        async with environment.publisher(target) as publisher:
            await publisher.publish_many(bodies)


@app.command(epilog=examples("flowstream dead-letters purge orders.dead"))
def purge(
    stream: Stream,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also when letters wait that were never replayed.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete all dead letters: the stream is deleted and made again, without its limits.

    Stop the pipeline that writes to it first.
    """
    waiting = len(run_async(_collect, url, stream, None, False))
    if waiting and not force:
        raise CommandError(
            f"{plural(waiting, 'dead letter')} of {stream} were never replayed; replay them, or "
            "add --force to lose them",
            ExitCode.USAGE,
        )
    confirm(f"Delete every dead letter of {stream}?", yes=yes)
    run_async(_purge, url, stream)
    say(f"{stream} is empty")


async def _purge(url: str, stream: str) -> None:
    from flowstream.cli.connect import connect

    async with connect(url) as environment:
        await environment.delete_stream(stream)
        await environment.create_stream(stream)


async def _position(environment: Environment, stream: str) -> int:
    """The offset a replay goes on with."""
    stored = await environment.query_offset(REFERENCE, stream)
    return 0 if stored is None else stored + 1


async def read(environment: Environment, stream: str, start: int) -> AsyncIterator[list[Letter]]:
    """Dead letters from `start` to the present end, a chunk at a time; other messages are left out
    with a note."""
    from flowstream.cli.letters import letter

    end = await environment.last_offset(stream)
    if end is None or start > end:
        return
    strange = 0
    async with environment.consumer(stream, offset=start) as consumer:
        async for delivery in consumer:
            batch = []
            for offset, raw in zip(delivery.offsets, delivery.bodies, strict=True):
                found = letter(offset, delivery.timestamp, raw) if offset <= end else None
                strange += found is None and offset <= end
                if found is not None:
                    batch.append(found)
            yield batch
            if delivery.offsets[-1] >= end:
                break
    if strange:
        note(f"{plural(strange, 'message')} of {stream} are no dead letters and were left out")
