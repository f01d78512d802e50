"""`flowstream streams create|delete|list|stats`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import print_json, print_rows, say
from flowstream.cli.output.progress import doing
from flowstream.cli.parser.options import (
    DEFAULT_URL,
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
    examples,
    new_app,
    run_async,
)
from flowstream.cli.parser.parsing import retention

if TYPE_CHECKING:
    from flowstream.client import Environment

app = new_app(
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

    Without limits a stream keeps everything. Retention works by whole segments (500 MB unless
    said otherwise), so a small limit needs small segments.
    """
    arguments = retention(max_bytes=max_bytes, max_age=max_age, segment_bytes=segment_bytes)
    run_async(_create, url, streams, arguments, if_missing)


async def _create(
    url: str, streams: list[str], arguments: dict[str, Any], if_missing: bool
) -> None:
    from flowstream.cli.connection.connect import connect

    async with connect(url) as environment:
        for stream in streams:
            with doing(f"creating {stream}"):
                existed = if_missing and await environment.stream_exists(stream)
                if not existed:
                    await _refuse_super_stream(environment, stream, "give the stream another name")
                    with existing_is_told(stream):
                        await environment.create_stream(stream, exist_ok=if_missing, **arguments)
            say(f"{stream} {'exists' if existed else 'created'}")


@contextmanager
def existing_is_told(name: str) -> Iterator[None]:
    """Name the option that makes a creation content with what is there."""
    from flowstream.errors import PreconditionFailed, StreamAlreadyExists

    try:
        yield
    except (StreamAlreadyExists, PreconditionFailed) as error:
        other = " with other arguments" if isinstance(error, PreconditionFailed) else ""
        raise CommandError(
            f"{name} exists already{other}; --if-missing leaves it as it is", ExitCode.SERVER
        ) from error


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
    from flowstream.cli.connection.connect import connect

    async with connect(url) as environment:
        for stream in streams:
            if not await environment.stream_exists(stream):
                remedy = (
                    f"delete it with all its partitions: flowstream super-streams delete {stream}"
                )
                await _refuse_super_stream(environment, stream, remedy)
                if if_exists:
                    say(f"{stream} does not exist")
                    continue
            with missing_is_told(stream), doing(f"deleting {stream}"):
                await environment.delete_stream(stream)
            say(f"{stream} deleted")


async def _refuse_super_stream(environment: Environment, name: str, remedy: str) -> None:
    """Brokers let a stream have the name of a super stream; commands could not tell them apart."""
    from flowstream.errors import StreamDoesNotExist

    try:
        await environment.partitions(name)
    except StreamDoesNotExist:
        return
    raise CommandError(f"{name} is a super stream; {remedy}", ExitCode.USAGE)


@contextmanager
def missing_is_told(name: str) -> Iterator[None]:
    """Name the option that makes a deletion content with nothing to delete."""
    from flowstream.errors import StreamDoesNotExist

    try:
        yield
    except StreamDoesNotExist as error:
        raise CommandError(
            f"{name} does not exist; --if-exists does nothing then", ExitCode.STREAM_MISSING
        ) from error


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

    The stream protocol has no command for this, so RabbitMQ's management API is asked: at
    --management, or on port 15672 (15671 for TLS) of the broker's host, if it is that broker's. It
    counts messages a few seconds late; flowstream streams stats is exact.
    """
    from flowstream.cli.connection.management import Management, ask_for_list

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
    """Show the first and last offset of streams, and who holds them.

    Of a super stream every partition is shown.
    """
    rows = run_async(_stats, url, streams)
    if json:
        print_json(rows)
    else:
        columns = ["stream", "first_offset", "last_offset", "leader", "replicas"]
        print_rows(rows, columns, empty="")


async def _stats(url: str, streams: list[str]) -> list[dict[str, Any]]:
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import streams_of

    async with connect(url) as environment:
        return [
            await stats_of(environment, stream)
            for name in streams
            for stream in await streams_of(environment, name)
        ]


async def stats_of(environment: Environment, stream: str) -> dict[str, Any]:
    """A row: `replicas` counts every node that has the stream, its leader too."""
    with doing(f"looking at {stream}"):
        stats = await environment.stream_stats(stream)
        nodes = await environment.metadata(stream)
        last = await environment.last_offset(stream)
    return {
        "stream": stream,
        "first_offset": stats.first_offset,
        "last_offset": last,
        "leader": None if nodes.leader is None else f"{nodes.leader.host}:{nodes.leader.port}",
        "replicas": len(nodes.replicas) + (nodes.leader is not None),
    }
