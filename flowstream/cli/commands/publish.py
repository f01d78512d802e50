"""`flowstream publish`: a file or standard input published to a stream, and confirmed."""

from __future__ import annotations

import shlex

import anyio
import typer

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.streams import partitions_of
from flowstream.cli.event_loop import on_signal, run_async
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code, root_cause
from flowstream.cli.output.console import note, print_json, say, short_duration
from flowstream.cli.output.progress import doing
from flowstream.cli.publishing.feed import Feed, FeedPlan, Tally
from flowstream.cli.publishing.records import Format, is_pipe
from flowstream.client import Environment
from flowstream.texts import plural


def publish(
    stream: str,
    file: str,
    *,
    format: Format | None,
    create: bool,
    raw: bool,
    rate: float | None,
    loop: bool,
    key: str | None,
    first: int,
    name: str | None,
    url: str,
    json: bool,
) -> None:
    if loop:
        _check_loop(file, first, name)
    if name is not None and not 0 < len(name.encode(errors="replace")) < 256:
        raise CommandError(f"--name {name[:20]!r}: a name has 1 to 255 bytes", ExitCode.USAGE)
    plan = FeedPlan(stream, file, format, raw, rate, loop, first, name, key)
    tally = run_async(_publish, plan, url, create, json)
    _report(plan, tally, json=json)
    if tally.interrupted and not loop:
        note(f"interrupted: the rest of {file} was not sent; {how_to_continue(plan, tally)}")
        raise typer.Exit(ExitCode.FORCED)


def _check_loop(file: str, first: int, name: str | None) -> None:
    if is_pipe(file):
        raise CommandError("--loop needs a file: a pipe cannot be read twice", ExitCode.USAGE)
    if first > 1 or name is not None:
        option = "--name" if name is not None else "--from-line"
        raise CommandError(f"--loop and {option} exclude each other", ExitCode.USAGE)


def _report(plan: FeedPlan, tally: Tally, *, json: bool) -> None:
    if json:
        print_json(
            {
                "stream": plan.stream,
                "messages": tally.messages,
                "deduplicated": tally.deduplicated,
                "bytes": tally.bytes,
                "seconds": round(tally.seconds, 3),
                "next_line": None if plan.loop else tally.next_line,
            }
        )
        return
    per_second = tally.messages / max(tally.seconds, 0.001)
    say(
        f"{plural(tally.messages, 'message')} confirmed in {plan.stream} "
        f"({short_duration(tally.seconds)}, {per_second:,.0f}/s)"
    )
    if not tally.messages and not tally.deduplicated and plan.first > 1:
        note(f"{plan.file} has no message at or after line {plan.first}")
    if tally.deduplicated:
        note(f"{_deduplicated(plan, tally)}: not added again")


def _deduplicated(plan: FeedPlan, tally: Tally) -> str:
    count = tally.deduplicated
    verb = "was" if count == 1 else "were"
    return f"{plural(count, 'message')} {verb} in {plan.stream} already under {plan.name!r}"


def how_to_continue(plan: FeedPlan, tally: Tally) -> str:
    """What is confirmed after an incomplete publish, and how to continue."""
    confirmed = (
        f"{plural(tally.messages, 'message')} {'is' if tally.messages == 1 else 'are'} confirmed"
    )
    if tally.deduplicated:
        confirmed += f", and {_deduplicated(plan, tally)}"
    if plan.loop:
        return confirmed
    line = tally.next_line
    if tally.beyond and not (
        plan.key and plan.name
    ):  # a partition has its lines without such a gap
        again = (
            f"under the same --name the broker drops missing lines before {tally.beyond}, so omit "
            "--name"
            if plan.name
            else "confirmed lines after it are then published twice"
        )
        return (
            f"{confirmed}: every line before {line}, and some up to line {tally.beyond}; continue "
            f"with --from-line {line} ({again})"
        )
    same = f" --name {plan.name}" if plan.name else ""
    return f"{confirmed}: every line before {line}; continue with --from-line {line}{same}"


async def _require(environment: Environment, plan: FeedPlan, create: bool) -> None:
    """Raise CommandError if the stream does not exist, and is not to be created."""
    try:
        await partitions_of(environment, plan.stream)
    except CommandError as error:
        if error.exit_code is not ExitCode.STREAM_MISSING:
            raise
        if plan.key is not None:
            name = shlex.quote(plan.stream)
            raise CommandError(
                f"no super stream is named {plan.stream!r}, and --key needs one; create it first: "
                f"flowstream super-streams create {name}",
                ExitCode.STREAM_MISSING,
            ) from error
        if not create:
            raise
        await environment.create_stream(plan.stream, exist_ok=True)


async def _publish(plan: FeedPlan, url: str, create: bool, json: bool) -> Tally:
    with Feed(plan) as feed:
        try:
            async with connect(url) as environment, anyio.create_task_group() as group:
                await _require(environment, plan, create)
                await group.start(on_signal, feed.stop)
                title = f"publishing to {plan.stream}"
                with doing(title, size=feed.size, unit="message") as step:
                    await feed.send(
                        environment, lambda: step.update(feed.position, feed.tally.messages)
                    )
                group.cancel_scope.cancel()
        except Exception as error:
            cause = root_cause(error)
            if not (feed.tally.messages or feed.tally.deduplicated):
                raise
            if json:
                _report(plan, feed.tally, json=True)
            raise CommandError(
                f"{cause}; {how_to_continue(plan, feed.tally)}", exit_code(cause)
            ) from error
        return feed.tally
