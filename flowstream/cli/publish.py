"""`flowstream publish`: a file (or standard input) into a stream, confirmed before it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.options import DEFAULT_URL, Json, Url, examples, on_signal, run_async
from flowstream.cli.output import note, plural, print_json, say, short_duration
from flowstream.cli.progress import Progress
from flowstream.cli.records import STDIN, Format

if TYPE_CHECKING:
    from flowstream.cli.feed import FeedPlan, Tally


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream publish orders orders.csv --create",
            "flowstream publish events events.ndjson.gz",
            "flowstream publish orders orders.csv --rate 500 --loop",
            "tail -f app.log | flowstream publish logs -",
        )
    )(publish)


def publish(
    stream: Annotated[str, typer.Argument(help="The stream to publish to.")],
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
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish a file to a stream: each line or record is one message.

    It ends once the broker has confirmed every message. CSV needs a header; every record becomes a
    JSON object of strings. Sending the same file twice publishes it twice.
    """
    if loop and file == STDIN:
        raise CommandError("--loop needs a file: stdin cannot be read twice", ExitCode.USAGE)
    from flowstream.cli.feed import FeedPlan

    plan = FeedPlan(stream, file, format, raw, rate, loop)
    tally = run_async(_publish, plan, url, create)
    if json:
        print_json(
            {
                "stream": stream,
                "messages": tally.messages,
                "bytes": tally.bytes,
                "seconds": round(tally.seconds, 3),
            }
        )
    else:
        per_second = tally.messages / max(tally.seconds, 0.001)
        say(
            f"{plural(tally.messages, 'message')} confirmed in {stream} "
            f"({short_duration(tally.seconds)}, {per_second:,.0f}/s)"
        )
    if tally.interrupted and not loop:
        note(f"interrupted: the rest of {file} was not sent")
        raise typer.Exit(ExitCode.FORCED)


async def _publish(plan: FeedPlan, url: str, create: bool) -> Tally:
    import anyio

    from flowstream.cli.connect import connect
    from flowstream.cli.feed import Feed

    with Feed(plan) as feed:
        async with connect(url) as environment:
            if create:
                await environment.create_stream(plan.stream, exist_ok=True)
            async with (
                environment.publisher(plan.stream) as publisher,
                anyio.create_task_group() as group,
            ):
                group.start_soon(on_signal, feed.stop)
                with Progress(f"publishing to {plan.stream}", feed.size) as progress:
                    await feed.send(
                        publisher, lambda: progress.update(feed.position, feed.tally.messages)
                    )
                group.cancel_scope.cancel()
        return feed.tally
