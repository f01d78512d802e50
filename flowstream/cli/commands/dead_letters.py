"""`flowstream dead-letters list|show|replay|purge`: what failed, why, and back into its stream.

How a replay is exact, also when it is killed in between, stands in replay.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowstream.cli.dead_letters.dead_letter_records import Letter, read, whole
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, print_rows, say, write
from flowstream.cli.output.progress import doing
from flowstream.cli.parser.options import (
    DEFAULT_URL,
    Json,
    Url,
    Yes,
    confirm,
    examples,
    new_app,
    pattern,
    run_async,
)
from flowstream.texts import common, folded, plural

if TYPE_CHECKING:
    from flowstream.cli.dead_letters.replay import Replayed
    from flowstream.client import Environment

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

INTERRUPTED = {
    False: "the same command goes on where this one was, and adds nothing twice",
    True: "some of the letters given with --offset may be replayed already",
}
"""What a replay that was broken off has done, by whether letters were chosen."""

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
    """Letters counted by reason; reasons that differ in numbers and ids only are one."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    texts: dict[tuple[str, str, str, str], str] = {}
    for it in letters:
        key = (it.pipeline, it.stage, it.phase, folded(it.reason))
        counts[key] += 1
        texts[key] = common(texts.get(key, it.reason), it.reason)
    return [
        {
            "letters": count,
            "pipeline": key[0],
            "stage": key[1],
            "phase": key[2],
            "reason": texts[key],
        }
        for key, count in counts.most_common()
    ]


@asynccontextmanager
async def _opened(url: str, stream: str) -> AsyncIterator[Environment]:
    """An environment, where `stream` is one that can have dead letters."""
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import require_stream

    async with connect(url) as environment:
        why = "dead letters are kept in streams: name a partition"
        await require_stream(environment, stream, why)
        yield environment


async def _collect(
    url: str, stream: str, wanted: re.Pattern[str] | None, everything: bool
) -> list[Letter]:
    from flowstream.cli.dead_letters.replay import position

    async with _opened(url, stream) as environment:
        start = 0 if everything else await position(environment, stream)
        with doing(f"reading {stream}", unit="dead letter") as step:
            return [
                letter
                async for batch in read(environment, stream, start, step)
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
        write(letter.text() + "\n")


async def _one(url: str, stream: str, offset: int) -> Letter:
    async with _opened(url, stream) as environment:
        async for batch in read(environment, stream, offset):
            if batch and batch[0].offset == offset:
                return await whole(environment, batch[0])
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
    key: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Of a super stream given with --to: the field that chooses the partition.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be replayed, and do nothing.")
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish the original messages again, byte for byte, into the streams they came from.

    Each letter is replayed once: the next replay goes on behind the last one, and the broker drops
    what a replay that was killed had published already. Letters that arrive meanwhile are left to
    the next one. The letters stay in their stream; purge removes them.

    A body that was too large for its letter is fetched from where it came from. A letter that
    cannot be replayed, because its original is gone or too large for a frame, is named and passed
    over.
    """
    if key is not None and to is None:
        raise CommandError("--key needs --to, the super stream to publish to", ExitCode.USAGE)
    chosen = sorted(set(offset or []))
    try:
        done = run_async(lambda: _replay(url, stream, chosen, to=to, key=key, dry_run=dry_run))
    except KeyboardInterrupt:
        if not dry_run:
            note(f"interrupted: {INTERRUPTED[bool(chosen)]}")
        raise
    missing = len(chosen) - done.published.total() - len(done.left)
    if chosen and missing:
        note(f"{plural(missing, 'offset')} given with --offset had no dead letter")
    if json:
        counts = done.published
        print_json([{"stream": name, "messages": counts[name]} for name in sorted(counts)])
    else:
        _tell(stream, done, dry_run)
    for left, why in sorted(done.left.items()):
        note(f"letter {left} of {stream} cannot be replayed: {why}")
    if done.left:
        raise CommandError(
            f"{plural(len(done.left), 'dead letter')} of {stream} could not be replayed; replay "
            f"them with --offset once that is possible ({_options(done)})",
            ExitCode.NOT_REPLAYED,
        )


def _options(done: Replayed) -> str:
    """The options that name the letters that were left, some of them."""
    offsets = sorted(done.left)
    more = " ..." if len(offsets) > 10 else ""
    return " ".join(f"--offset {offset}" for offset in offsets[:10]) + more


def _tell(stream: str, done: Replayed, dry_run: bool) -> None:
    would = "would be replayed" if dry_run else "replayed and confirmed"
    for name in sorted(done.published):
        if done.published[name]:
            say(f"{plural(done.published[name], 'message')} {would} into {name}")
        if done.before[name]:
            say(
                f"{plural(done.before[name], 'message')} of a replay that was broken off "
                f"{'is' if done.before[name] == 1 else 'are'} in {name} already"
            )
    if not done.published and not done.left:
        say(f"nothing to replay: every dead letter of {stream} was replayed before")


async def _replay(
    url: str, stream: str, offsets: list[int], *, to: str | None, key: str | None, dry_run: bool
) -> Replayed:
    from flowstream.cli.dead_letters.replay import replay_chosen, replay_waiting

    async with _opened(url, stream) as environment:
        if offsets:
            return await replay_chosen(environment, stream, offsets, to, key=key, dry_run=dry_run)
        return await replay_waiting(environment, stream, to, key=key, dry_run=dry_run)


@app.command(epilog=examples("flowstream dead-letters purge orders.dead"))
def purge(
    stream: Stream,
    *,
    yes: Yes = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also when letters wait that were never replayed.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete all dead letters: the stream is deleted and made again, without its limits.

    Stop the pipeline that writes to it first.
    """
    waiting, end = run_async(_waiting, url, stream)
    if waiting and not force:
        raise CommandError(
            f"{plural(waiting, 'dead letter')} of {stream} were never replayed; replay them, or "
            "add --force to lose them",
            ExitCode.USAGE,
        )
    confirm(f"Delete every dead letter of {stream}?", yes=yes)
    run_async(_purge, url, stream, end)
    say(f"{stream} is empty")


async def _waiting(url: str, stream: str) -> tuple[int, int | None]:
    """How many letters were never replayed, and the end of the stream that was looked at."""
    async with _opened(url, stream) as environment:
        end = await environment.last_offset(stream)
    return len(await _collect(url, stream, None, False)), end


async def _purge(url: str, stream: str, end: int | None) -> None:
    async with _opened(url, stream) as environment:
        if await environment.last_offset(stream) != end:
            raise CommandError(
                f"{stream} got new dead letters meanwhile; stop the pipeline that writes to it "
                "first",
                ExitCode.IN_USE,
            )
        with doing(f"making {stream} anew"):
            try:
                await environment.delete_stream(stream)
            finally:  # also where a Ctrl-C comes in between
                await environment.create_stream(stream, exist_ok=True)
