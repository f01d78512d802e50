"""`flowstream publish`: a file (or standard input) into a stream, confirmed before it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code, root_cause
from flowstream.cli.output.console import note, print_json, say, short_duration
from flowstream.cli.output.progress import doing
from flowstream.cli.parser.options import DEFAULT_URL, Json, Url, examples, on_signal, run_async
from flowstream.cli.publishing.records import Format, is_pipe
from flowstream.texts import plural

if TYPE_CHECKING:
    from flowstream.cli.publishing.feed import FeedPlan, Tally
    from flowstream.client import Environment


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream publish orders orders.csv --create",
            "flowstream publish events events.ndjson.gz",
            "flowstream publish orders orders.csv --name orders-2026-11 --from-line 100001",
            "flowstream publish orders orders.csv --key customer_id",
            "flowstream publish orders orders.csv --rate 500 --loop",
            "tail -f app.log | flowstream publish logs -",
        )
    )(publish)


def publish(
    stream: Annotated[str, typer.Argument(help="The stream or super stream to publish to.")],
    file: Annotated[str, typer.Argument(help="NDJSON, CSV or lines; .gz too; - for stdin.")],
    *,
    format: Annotated[
        Format | None, typer.Option("--format", help="How to cut the file; else by extension.")
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the stream if it does not exist.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Bare bodies instead of AMQP 1.0 messages that hold them."),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.01, metavar="NUMBER", help="At most this many messages a second."
        ),
    ] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Start over at the end of the file, until Ctrl-C.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="FIELD",
            help="Of a super stream: the field whose value chooses the partition.",
        ),
    ] = None,
    first: Annotated[
        int,
        typer.Option(
            "--from-line",
            min=1,
            metavar="N",
            help="Begin with this line (or the first record behind its beginning).",
        ),
    ] = 1,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Lines that were published under this name already are not added twice.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish a file to a stream: each line or record is one message.

    It ends once the broker has confirmed every message. CSV needs a header; every record becomes a
    JSON object of strings. Where it ends before that, it says how many messages are confirmed and
    the line to go on with.

    Sending the same file twice publishes it twice, except under the same --name: the broker then
    drops every line up to the last one it has of that name. Use a name for one file only, and
    correct lines in place: what counts is the line's number.

    In a super stream the values of --key choose partitions as in all clients: by their hash, or, in
    one that was made with routing keys, as these keys. A value is a string or a number.
    """
    if loop:
        _check_loop(file, first, name)
    if name is not None and not 0 < len(name.encode(errors="replace")) < 256:
        raise CommandError(f"--name {name[:20]!r}: it must have 1 to 255 bytes", ExitCode.USAGE)
    from flowstream.cli.publishing.feed import FeedPlan

    plan = FeedPlan(stream, file, format, raw, rate, loop, first, name, key)
    tally = run_async(_publish, plan, url, create, json)
    _tell(plan, tally, json=json)
    if tally.interrupted and not loop:
        note(f"interrupted: the rest of {file} was not sent; {standing(plan, tally)}")
        raise typer.Exit(ExitCode.FORCED)


def _check_loop(file: str, first: int, name: str | None) -> None:
    if is_pipe(file):
        raise CommandError("--loop needs a file: a pipe cannot be read twice", ExitCode.USAGE)
    if first > 1 or name is not None:
        option = "--name" if name is not None else "--from-line"
        raise CommandError(f"--loop and {option} exclude each other", ExitCode.USAGE)


def _tell(plan: FeedPlan, tally: Tally, *, json: bool) -> None:
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
        note(f"{plan.file} has no message at or behind line {plan.first}")
    if tally.deduplicated:
        note(f"{_deduplicated(plan, tally)}: not added again")


def _deduplicated(plan: FeedPlan, tally: Tally) -> str:
    count = tally.deduplicated
    verb = "was" if count == 1 else "were"
    return f"{plural(count, 'message')} {verb} in {plan.stream} already under {plan.name!r}"


def standing(plan: FeedPlan, tally: Tally) -> str:
    """What is confirmed after a publishing that did not come to its end, and how to go on."""
    confirmed = (
        f"{plural(tally.messages, 'message')} {'is' if tally.messages == 1 else 'are'} confirmed"
    )
    if tally.deduplicated:
        confirmed += f", and {_deduplicated(plan, tally)}"
    if plan.loop:
        return confirmed
    line = tally.next_line
    if tally.beyond and not (plan.key and plan.name):  # a partition's lines have no such hole
        again = (
            f"a line before {tally.beyond} that is missing is dropped under the same --name, so "
            "publish it without"
            if plan.name
            else "what is confirmed behind it would be published twice"
        )
        return (
            f"{confirmed}: every line before {line}, and some up to line {tally.beyond}; go on "
            f"with --from-line {line} ({again})"
        )
    same = f" --name {plan.name}" if plan.name else ""
    return f"{confirmed}: every line before {line}; go on with --from-line {line}{same}"


async def _create(environment: Environment, stream: str) -> None:
    from flowstream.cli.readers.position import partitions_of

    try:
        await partitions_of(environment, stream)
    except CommandError as error:
        if error.exit_code is not ExitCode.STREAM_MISSING:
            raise
        await environment.create_stream(stream, exist_ok=True)


async def _publish(plan: FeedPlan, url: str, create: bool, json: bool) -> Tally:
    import anyio

    from flowstream.cli.connection.connect import connect
    from flowstream.cli.publishing.feed import Feed

    with Feed(plan) as feed:
        try:
            async with connect(url) as environment, anyio.create_task_group() as group:
                if create and plan.key is None:
                    await _create(environment, plan.stream)
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
                _tell(plan, feed.tally, json=True)
            raise CommandError(
                f"{cause}; {standing(plan, feed.tally)}", exit_code(cause)
            ) from error
        return feed.tally
