"""`flowstream streams create|delete|list|stats`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.find_management import ask_for_list
from flowstream.cli.connection.management import Management
from flowstream.cli.connection.streams import (
    explain_existing,
    explain_missing,
    refuse_partition,
    refuse_super_stream,
    stats_of,
    streams_of,
)
from flowstream.cli.event_loop import run_async
from flowstream.cli.output.console import print_json, say
from flowstream.cli.output.progress import doing
from flowstream.cli.output.tables import print_rows
from flowstream.cli.parser.options import (
    confirm,
    retention_arguments,
)


def create(
    streams: list[str],
    *,
    max_bytes: int | None,
    max_age: timedelta | None,
    segment_bytes: int | None,
    if_missing: bool,
    url: str,
) -> None:
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


PARTITION = (
    "without the partition its publishers and consumers fail. Delete all of it: flowstream "
    "super-streams delete {name}; --force deletes the partition alone"
)


def delete(streams: list[str], yes: bool, if_exists: bool, force: bool, url: str) -> None:
    confirm(f"Delete {', '.join(streams)} with all messages?", yes=yes)
    run_async(_delete, url, streams, if_exists, force)


async def _delete(url: str, streams: list[str], if_exists: bool, force: bool) -> None:
    async with connect(url) as environment:
        for stream in [] if force else streams:
            await refuse_partition(environment, stream, PARTITION)
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


def list_(management: str | None, url: str, json: bool) -> None:
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


def stats(streams: list[str], url: str, json: bool) -> None:
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
