"""`flowstream peek` and `flowstream tail`: look into a stream without taking anything from it."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json_line, write
from flowstream.cli.output.progress import Step, doing
from flowstream.cli.output.safe_text import visible
from flowstream.cli.output.status_line import status_line
from flowstream.cli.parser.options import DEFAULT_URL, Url, examples, on_signal, pattern, run_async
from flowstream.cli.parser.parsing import parse_place

if TYPE_CHECKING:
    from flowstream.cli.output.messages import Shown
    from flowstream.client import Environment, Offset

Stream = Annotated[str, typer.Argument(help="The stream or super stream.")]
Grep = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Only messages whose body or properties match."),
]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON document a line.")]
Bodies = Annotated[
    bool,
    typer.Option("--bodies", help="Bodies only: byte by byte in a pipe, escaped on a terminal."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="OFFSET",
        help="first, last, next, a number, a time (2026-11-23T09:00), or an age (30m, 2h, 7d).",
    ),
]


GAPS = 1_000
"""Offsets more than asked for that are read from the end: some are the broker's own records."""


@dataclass(frozen=True, slots=True)
class Look:
    """What to read and how to show it; `limit` None is no limit, `follow` waits for more."""

    url: str = field(repr=False)
    stream: str
    start: str
    limit: int | None
    last: int | None
    follow: bool
    grep: str | None
    style: str


def register(app: typer.Typer) -> None:
    """Add both commands to the tree."""
    app.command(
        epilog=examples(
            "flowstream peek orders",
            "flowstream peek orders --last 20",
            "flowstream peek orders --from 2h --grep 'customer_id\": 42'",
            "flowstream peek orders -n 1000 --json | jq .body.amount",
        )
    )(peek)
    app.command(
        epilog=examples(
            "flowstream tail orders",
            "flowstream tail orders --from 10m",
            "flowstream tail orders.dead --json",
        )
    )(tail)


def peek(
    stream: Stream,
    *,
    start: From = None,
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, metavar="NUMBER", help="Messages at most.")
    ] = 10,
    last: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="The last so many messages instead.")
    ] = None,
    grep: Grep = None,
    json: JsonLines = False,
    bodies: Bodies = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show some messages of a stream and end.

    With --json a message has its `body` (JSON, every digit as it was published), or `text`, or
    `base64` with the `reason`. Of a super stream so many messages of each partition are shown.
    Nothing is taken and no offset is stored.
    """
    if last is not None and start is not None:
        raise CommandError("--last and --from exclude each other", ExitCode.USAGE)
    limit = None if last is not None else count
    run_async(
        _show,
        Look(url, stream, start or "first", limit, last, False, grep, _style(json, bodies)),
    )


def tail(
    stream: Stream,
    *,
    start: From = None,
    grep: Grep = None,
    json: JsonLines = False,
    bodies: Bodies = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show messages as they arrive, until Ctrl-C.

    It begins with the next message, or with --from. Of a super stream all partitions are shown.
    Nothing is taken and no offset is stored.
    """
    look = Look(url, stream, start or "next", None, None, True, grep, _style(json, bodies))
    run_async(_show, look)


def _style(json: bool, bodies: bool) -> str:
    if json and bodies:
        raise CommandError("--json and --bodies exclude each other", ExitCode.USAGE)
    return "json" if json else "bodies" if bodies else "line"


async def _show(look: Look) -> None:
    import anyio

    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import streams_of

    wanted = pattern(look.grep)
    start = parse_place("--from", look.start)
    async with connect(look.url) as environment, anyio.create_task_group() as group:
        if look.follow:  # Ctrl-C is its end, and no interruption
            group.start_soon(on_signal, group.cancel_scope.cancel)
        streams = await streams_of(environment, look.stream)
        partitioned = streams != [look.stream]
        looks = [look] if look.follow else [replace(look, stream=stream) for stream in streams]
        count = 0
        for each in looks:
            messages = _messages(environment, each, start, partitioned and look.follow)
            title = None if look.follow else f"reading {each.stream}"
            with doing(title, unit="message") as step:
                count += await _print_all(messages, look, wanted, step, named=partitioned)
        if not count:
            note(f"no message of {look.stream} to show")
        group.cancel_scope.cancel()


async def _print_all(
    messages: AsyncIterator[Shown],
    look: Look,
    wanted: re.Pattern[str] | None,
    step: Step,
    *,
    named: bool,
) -> int:
    """Print what is wanted, up to the limit of `look`; returns how many that were."""
    count = 0
    counted = _counted(messages, step)
    async for message in counted if look.last is None else _last(counted, look.last):
        if wanted is None or wanted.search(message.text()):
            _print(message, look.style, named=named)
            count += 1
            if count == look.limit:
                break
    return count


async def _counted(messages: AsyncIterator[Shown], step: Step) -> AsyncIterator[Shown]:
    async for message in messages:
        step.update(step.done + 1)
        yield message


async def _last(messages: AsyncIterator[Shown], count: int) -> AsyncIterator[Shown]:
    kept: deque[Shown] = deque(maxlen=count)
    async for message in messages:
        kept.append(message)
    for message in kept:
        yield message


async def _messages(
    environment: Environment, look: Look, start: Offset, partitioned: bool
) -> AsyncIterator[Shown]:
    """Messages from where `look` starts, to the present end or on and on; those of all partitions
    of a super stream as they come in."""
    from flowstream.cli.output.messages import shown
    from flowstream.cli.readers.position import retained

    end = None
    if not look.follow:
        end = await environment.last_offset(look.stream)
        if end is None:
            return
        if look.last is not None:
            start = max(0, end - 2 * look.last - GAPS)
        if await environment.resolve_offset(look.stream, start) > end:
            return
    if isinstance(start, int) and not partitioned:
        start = await retained(environment, look.stream, start)
    reader = environment.super_stream_consumer if partitioned else environment.consumer
    async with reader(look.stream, offset=start, on_truncated="skip") as consumer:
        async for delivery in consumer:
            for offset, raw in zip(delivery.offsets, delivery.bodies, strict=True):
                if end is None or offset <= end:
                    yield shown(delivery.stream, offset, delivery.timestamp, raw)
            if end is not None and delivery.offsets[-1] >= end:
                return


def _print(message: Shown, style: str, *, named: bool) -> None:
    """`named`: each line begins with the stream's name. A terminal gets nothing it would act on."""
    from flowstream.cli.output.messages import ON_SCREEN

    on_screen = sys.stdout.isatty()
    if style == "json":
        print_json_line(message.document())
    elif style == "bodies" and not on_screen:
        with status_line.above():
            sys.stdout.buffer.write(message.body + b"\n")
            sys.stdout.buffer.flush()
    elif style == "bodies":
        body = message.body.decode(errors="backslashreplace")
        write(visible(body, keep="\n\t") + "\n")
    else:
        line = message.line(ON_SCREEN if on_screen else None)
        write(f"{message.stream}  " * named + line + "\n")
