"""`flowstream streams create|delete|list|stats`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.find_management import ask_for_list
from flowstream.cli.connection.management import Management
from flowstream.cli.connection.streams import (
    explain_existing,
    explain_missing,
    refuse_super_stream,
    stats_of,
    streams_of,
)
from flowstream.cli.event_loop import run_async
from flowstream.cli.output.console import print_json, say
from flowstream.cli.output.progress import doing
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.command import new_app
from flowstream.cli.parser.group import examples
from flowstream.cli.parser.options import (
    IfExists,
    IfMissing,
    Json,
    ManagementUrl,
    MaxAge,
    MaxBytes,
    SegmentBytes,
    Url,
    Yes,
    confirm,
    retention_arguments,
)
from flowstream.client import DEFAULT_URL

app: Final = new_app(
    "streams",
    "Create, delete, list and inspect streams.",
    examples(
        "flowstream streams create orders --max-age 7d",
        "flowstream streams stats orders orders.dead",
        "flowstream streams list",
        "flowstream streams delete orders",
    ),
)

Names = Annotated[list[str], typer.Argument(metavar="STREAM", help="One or more streams.")]


@app.command(
    epilog=examples(
        "flowstream streams create orders",
        "flowstream streams create orders --max-bytes 20GB --max-age 7d",
        "flowstream streams create orders orders.dead --if-missing",
    )
)
def create(
    streams: Names,
    *,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    segment_bytes: SegmentBytes = None,
    if_missing: IfMissing = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create streams.

    Without limits a stream keeps everything. Retention deletes whole segments (500 MB by default),
    so a small limit needs small segments.
    """
    arguments = retention_arguments(max_bytes, max_age, segment_bytes)
    run_async(_create, url, streams, arguments, if_missing)


async def _create(
    url: str, streams: list[str], arguments: dict[str, Any], if_missing: bool
) -> None:
    async with connect(url) as environment:
        for stream in streams:
            with doing(f"creating {stream}"):
                existed = if_missing and await environment.stream_exists(stream)
                if not existed:
                    await refuse_super_stream(environment, stream, "give the stream another name")
                    with explain_existing(stream):
                        await environment.create_stream(stream, exist_ok=if_missing, **arguments)
            say(f"{stream} {'exists' if existed else 'created'}")


@app.command(
    epilog=examples(
        "flowstream streams delete orders", "flowstream streams delete orders --yes --if-exists"
    )
)
def delete(
    streams: Names,
    yes: Yes = False,
    if_exists: IfExists = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete streams with all their messages and stored offsets."""
    confirm(f"Delete {', '.join(streams)} with all messages?", yes=yes)
    run_async(_delete, url, streams, if_exists)


async def _delete(url: str, streams: list[str], if_exists: bool) -> None:
    async with connect(url) as environment:
        for stream in streams:
            if not await environment.stream_exists(stream):
                remedy = (
                    f"delete it with all its partitions: flowstream super-streams delete {stream}"
                )
                await refuse_super_stream(environment, stream, remedy)
                if if_exists:
                    say(f"{stream} does not exist")
                    continue
            with explain_missing(stream), doing(f"deleting {stream}"):
                await environment.delete_stream(stream)
            say(f"{stream} deleted")


@app.command(
    "list",
    epilog=examples(
        "flowstream streams list",
        "flowstream streams list --management http://guest:guest@localhost:15672 --json",
    ),
)
def list_(
    management: ManagementUrl = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the streams of the virtual host.

    The stream protocol has no command for this, so the list comes from RabbitMQ's management API:
    at --management, or on port 15672 (15671 for TLS) of the broker's host, if it is that broker's.
    Its message counts are a few seconds old; flowstream streams stats is exact.
    """
    rows = [_listed(queue) for queue in ask_for_list(url, management, Management.streams)]
    if json:
        print_json(rows)
    else:
        columns = ["stream", "messages", "leader", "replicas", "max_age", "max_bytes"]
        print_rows(rows, columns, empty="the virtual host has no streams")


def _listed(queue: dict[str, Any]) -> dict[str, Any]:
    arguments = queue.get("arguments", {})
    return {
        "stream": queue["name"],
        "messages": queue.get("messages"),
        "leader": queue.get("leader"),
        "replicas": len(queue.get("members", [])),
        "max_age": arguments.get("x-max-age"),
        "max_bytes": arguments.get("x-max-length-bytes"),
    }


@app.command(
    epilog=examples("flowstream streams stats orders", "flowstream streams stats orders --json")
)
def stats(streams: Names, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the first and last offset of streams, and the nodes that have them.

    For a super stream, every partition is shown.
    """
    rows = run_async(_stats, url, streams)
    if json:
        print_json(rows)
    else:
        columns = ["stream", "first_offset", "last_offset", "leader", "replicas"]
        print_rows(rows, columns, empty="")


async def _stats(url: str, streams: list[str]) -> list[dict[str, Any]]:
    async with connect(url) as environment:
        return [
            await stats_of(environment, stream)
            for name in streams
            for stream in await streams_of(environment, name)
        ]
