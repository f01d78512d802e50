"""`flowstream dead-letters list|show|replay|purge`: failed messages, their reasons, and replay.

cli/dead_letters/replay.py says how a replay publishes each message exactly once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import require_stream
from flowstream.cli.dead_letters.dead_letter_records import DeadLetterRecord, read, whole
from flowstream.cli.dead_letters.replay import (
    Replayed,
    next_to_replay,
    replay_chosen,
    replay_waiting,
)
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json, say, write
from flowstream.cli.output.progress import doing
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.options import confirm
from flowstream.client import Environment
from flowstream.texts import beginning, common, folded, plural

INTERRUPTED = {
    False: "run the same command again to continue; no message is published twice",
    True: "some of the dead letters given with --offset may have been replayed",
}
"""What an interrupted replay has done, by whether --offset was given."""


def list_(
    stream: str,
    *,
    reason: re.Pattern[str] | None,
    reasons: bool,
    everything: bool,
    url: str,
    json: bool,
) -> None:
    letters = run_async(_collect, url, stream, reason, everything)
    rows = _by_reason(letters) if reasons else [letter.row() for letter in letters]
    columns = (
        ["letters", "pipeline", "stage", "phase", "reason"]
        if reasons
        else [*DeadLetterRecord.COLUMNS]
    )
    if json:
        print_json(rows)
    else:
        print_rows(rows, columns, empty=f"no dead letter of {stream} is waiting")


def _by_reason(letters: list[DeadLetterRecord]) -> list[dict[str, Any]]:
    """Dead letters counted by reason. Reasons that differ only in numbers and ids are one."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    texts: dict[tuple[str, str, str, str], str] = {}
    for it in letters:
        reason = beginning(it.reason)
        key = (it.pipeline, it.stage, it.phase, folded(reason))
        counts[key] += 1
        texts[key] = common(texts.get(key, reason), reason)
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
    """A connected environment. Raises CommandError if `stream` cannot have dead letters."""
    async with connect(url) as environment:
        why = "dead letters are in streams: name a partition"
        await require_stream(environment, stream, why)
        yield environment


async def _collect(
    url: str, stream: str, wanted: re.Pattern[str] | None, everything: bool
) -> list[DeadLetterRecord]:
    async with _opened(url, stream) as environment:
        start = 0 if everything else await next_to_replay(environment, stream)
        with doing(f"reading {stream}", unit="dead letter") as step:
            return [
                letter
                async for batch in read(environment, stream, start, step)
                for letter in batch
                if wanted is None or wanted.search(letter.reason)
            ]


def show(stream: str, offset: int, url: str, json: bool) -> None:
    letter = run_async(_one, url, stream, offset)
    if json:
        print_json(letter.document())
    else:
        write(letter.text() + "\n")


async def _one(url: str, stream: str, offset: int) -> DeadLetterRecord:
    async with _opened(url, stream) as environment:
        async for batch in read(environment, stream, offset):
            if batch and batch[0].offset == offset:
                return await whole(environment, batch[0])
            break
    raise CommandError(f"{stream} has no dead letter at offset {offset}", ExitCode.INPUT)


def replay(
    stream: str,
    *,
    offset: list[int] | None,
    to: str | None,
    key: str | None,
    dry_run: bool,
    url: str,
    json: bool,
) -> None:
    if key is not None and to is None:
        raise CommandError("--key needs --to SUPER_STREAM", ExitCode.USAGE)
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
        _report(stream, done, dry_run)
    for left, why in sorted(done.left.items()):
        note(f"dead letter {left} of {stream} cannot be replayed: {why}")
    if done.left:
        raise CommandError(
            f"{plural(len(done.left), 'dead letter')} of {stream} could not be replayed; once "
            f"that is possible, replay them with {_options(done)}",
            ExitCode.NOT_REPLAYED,
        )


def _options(done: Replayed) -> str:
    """The options that select the dead letters that were not replayed, at most ten."""
    offsets = sorted(done.left)
    more = " ..." if len(offsets) > 10 else ""
    return " ".join(f"--offset {offset}" for offset in offsets[:10]) + more


def _report(stream: str, done: Replayed, dry_run: bool) -> None:
    would = "would be replayed" if dry_run else "replayed and confirmed"
    for name in sorted(done.published):
        if done.published[name]:
            say(f"{plural(done.published[name], 'message')} {would} into {name}")
        if done.before[name]:
            say(
                f"{plural(done.before[name], 'message')} of an interrupted replay "
                f"{'is' if done.before[name] == 1 else 'are'} in {name} already"
            )
    if not done.published and not done.left:
        say(f"nothing to replay: every dead letter of {stream} was replayed before")


async def _replay(
    url: str, stream: str, offsets: list[int], *, to: str | None, key: str | None, dry_run: bool
) -> Replayed:
    async with _opened(url, stream) as environment:
        if offsets:
            return await replay_chosen(environment, stream, offsets, to, key=key, dry_run=dry_run)
        return await replay_waiting(environment, stream, to, key=key, dry_run=dry_run)


def purge(stream: str, *, yes: bool, force: bool, url: str) -> None:
    waiting, end = run_async(_waiting, url, stream)
    if waiting and not force:
        raise CommandError(
            f"{stream} has {plural(waiting, 'dead letter')} that "
            f"{'was' if waiting == 1 else 'were'} "
            "never replayed; replay first, or add --force to lose them",
            ExitCode.USAGE,
        )
    confirm(f"Delete every dead letter of {stream}?", yes=yes)
    run_async(_purge, url, stream, end)
    say(f"{stream} is empty")


async def _waiting(url: str, stream: str) -> tuple[int, int | None]:
    """The number of dead letters that were never replayed, and the end of the stream."""
    async with _opened(url, stream) as environment:
        end = await environment.last_offset(stream)
    return len(await _collect(url, stream, None, False)), end


async def _purge(url: str, stream: str, end: int | None) -> None:
    async with _opened(url, stream) as environment:
        if await environment.last_offset(stream) != end:
            raise CommandError(
                f"{stream} got new dead letters meanwhile; first stop the pipeline that writes to "
                "it",
                ExitCode.IN_USE,
            )
        with doing(f"deleting and creating {stream}"):
            try:
                await environment.delete_stream(stream)
            finally:  # also after a Ctrl-C in between
                await environment.create_stream(stream, exist_ok=True)
