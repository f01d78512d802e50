"""`flowstream peek` and `flowstream tail`: show messages of a stream; nothing is consumed."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import retained, streams_of
from flowstream.cli.event_loop import on_signal, run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, print_json_line, status_line, write
from flowstream.cli.output.messages import ON_SCREEN, Shown, shown
from flowstream.cli.output.progress import Step, doing
from flowstream.cli.output.safe_text import visible
from flowstream.client import Environment, Offset

GAPS = 1_000
"""Additional offsets to read from the end, because some are the broker's own records."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What to read, and how to show it. With `follow` it waits for more messages."""

    url: str = field(repr=False)
    stream: str
    start: Offset
    limit: int | None
    last: int | None
    follow: bool
    grep: re.Pattern[str] | None
    style: str


def peek(
    stream: str,
    *,
    start: Any,
    count: int,
    last: int | None,
    grep: re.Pattern[str] | None,
    json: bool,
    bodies: bool,
    url: str,
) -> None:
    if last is not None and start is not None:
        raise CommandError("--last and --from exclude each other", ExitCode.USAGE)
    limit = None if last is not None else count
    run_async(
        _show,
        ReadRequest(
            url,
            stream,
            "first" if start is None else start,
            limit,
            last,
            False,
            grep,
            _style(json, bodies),
        ),
    )


def tail(
    stream: str, *, start: Any, grep: re.Pattern[str] | None, json: bool, bodies: bool, url: str
) -> None:
    first: Any = "next" if start is None else start
    request = ReadRequest(url, stream, first, None, None, True, grep, _style(json, bodies))
    run_async(_show, request)


def _style(json: bool, bodies: bool) -> str:
    if json and bodies:
        raise CommandError("--json and --bodies exclude each other", ExitCode.USAGE)
    return "json" if json else "bodies" if bodies else "line"


async def _show(request: ReadRequest) -> None:
    async with connect(request.url) as environment, anyio.create_task_group() as group:
        if request.follow:  # Ctrl-C is the regular end
            group.start_soon(on_signal, group.cancel_scope.cancel)
        streams = await streams_of(environment, request.stream)
        partitioned = streams != [request.stream]
        requests = (
            [request] if request.follow else [replace(request, stream=stream) for stream in streams]
        )
        count = 0
        for each in requests:
            messages = _messages(environment, each, partitioned and request.follow)
            title = None if request.follow else f"reading {each.stream}"
            with doing(title, unit="message") as step:
                count += await _print_all(messages, request, step, named=partitioned)
        if not count:
            note(f"no message of {request.stream} to show")
        group.cancel_scope.cancel()


async def _print_all(
    messages: AsyncIterator[Shown],
    request: ReadRequest,
    step: Step,
    *,
    named: bool,
) -> int:
    """Print matching messages, up to the limit; returns how many."""
    count = 0
    counted = _counted(messages, step)
    async for message in counted if request.last is None else _last(counted, request.last):
        if request.grep is None or request.grep.search(message.text()):
            _print(message, request.style, named=named)
            count += 1
            if count == request.limit:
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
    environment: Environment, request: ReadRequest, partitioned: bool
) -> AsyncIterator[Shown]:
    """Messages from the start of `request` to the current end, or without end with `follow`.

    With `partitioned`, those of all partitions of a super stream as they arrive.
    """
    start, end = request.start, None
    if not request.follow:
        end = await environment.last_offset(request.stream)
        if end is None:
            return
        if request.last is not None:
            start = max(0, end - 2 * request.last - GAPS)
        if await environment.resolve_offset(request.stream, start) > end:
            return
    if isinstance(start, int) and not partitioned:
        start = await retained(environment, request.stream, start)
    reader = environment.super_stream_consumer if partitioned else environment.consumer
    async with reader(request.stream, offset=start, on_truncated="skip") as consumer:
        async for delivery in consumer:
            for offset, raw in zip(delivery.offsets, delivery.bodies, strict=True):
                if end is None or offset <= end:
                    yield shown(delivery.stream, offset, delivery.timestamp, raw)
            if end is not None and delivery.offsets[-1] >= end:
                return


def _print(message: Shown, style: str, *, named: bool) -> None:
    """Print a message, after the name of its stream if `named`, without control codes."""
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
