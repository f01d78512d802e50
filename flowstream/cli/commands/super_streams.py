"""`flowstream super-streams create|delete|list|list-partitions|route`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Final

import typer

from flowstream.cli.connection.connect import connect
from flowstream.cli.connection.find_management import ask_for_list
from flowstream.cli.connection.management import Management
from flowstream.cli.connection.streams import (
    explain_existing,
    explain_missing,
    require_super_stream,
    stats_of,
)
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import print_json, say
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
from flowstream.client import DEFAULT_URL, Environment, hash_route
from flowstream.errors import AccessRefused, NotSupported, StreamDoesNotExist

app: Final = new_app(
    "super-streams",
    "Create, delete and inspect super streams: streams of several partitions.",
    examples(
        "flowstream super-streams create orders --partitions 3",
        "flowstream super-streams list-partitions orders",
        "flowstream super-streams route orders customer-42",
        "flowstream super-streams delete orders",
    ),
)

Name = Annotated[str, typer.Argument(metavar="SUPER_STREAM", help="The super stream.")]


@app.command(
    epilog=examples(
        "flowstream super-streams create orders --partitions 6 --max-age 7d",
        "flowstream super-streams create orders --key eu --key us --if-missing",
    )
)
def create(
    super_stream: Name,
    *,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="The number of partitions, named NAME-0, NAME-1 ... Default: 3.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Instead, a partition NAME-KEY for this routing key. Repeatable."),
    ] = None,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    segment_bytes: SegmentBytes = None,
    if_missing: IfMissing = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a super stream with its partitions (RabbitMQ 3.13 or later).

    The number of partitions cannot be changed: keys would move to other partitions.
    """
    if key and partitions is not None:
        raise CommandError("--partitions and --key exclude each other", ExitCode.USAGE)
    arguments = retention_arguments(max_bytes, max_age, segment_bytes)
    arguments["partitions"] = key or partitions or 3
    streams, existed = run_async(_create, url, super_stream, arguments, if_missing)
    say(f"{super_stream} {'exists' if existed else 'created'}: {', '.join(streams)}")


async def _create(
    url: str, super_stream: str, arguments: dict[str, Any], if_missing: bool
) -> tuple[list[str], bool]:
    async with connect(url) as environment:
        if if_missing:
            try:
                return await _existing(environment, super_stream, arguments), True
            except StreamDoesNotExist:
                pass
        if await environment.stream_exists(super_stream):
            raise CommandError(
                f"{super_stream} is a stream; give the super stream another name", ExitCode.USAGE
            )
        with explain_existing(super_stream):
            await environment.create_super_stream(super_stream, exist_ok=if_missing, **arguments)
        return await environment.partitions(super_stream), False


async def _existing(
    environment: Environment, super_stream: str, arguments: dict[str, Any]
) -> list[str]:
    """The partitions of a super stream that exists; all of them, if it is being created now."""
    partitions = await environment.partitions(super_stream)
    wanted = arguments["partitions"]
    if len(partitions) < (wanted if isinstance(wanted, int) else len(wanted)):
        with suppress(NotSupported, AccessRefused):  # as they may be where it exists
            await environment.create_super_stream(super_stream, exist_ok=True, **arguments)
            partitions = await environment.partitions(super_stream)
    return partitions


@app.command(
    epilog=examples(
        "flowstream super-streams delete orders",
        "flowstream super-streams delete orders --yes --if-exists",
    )
)
def delete(
    super_stream: Name,
    yes: Yes = False,
    if_exists: IfExists = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Delete a super stream with all its partitions, messages and stored offsets."""
    confirm(f"Delete {super_stream} with all its partitions and messages?", yes=yes)
    deleted = run_async(_delete, url, super_stream, if_exists)
    say(f"{super_stream} {'deleted' if deleted else 'does not exist'}")


async def _delete(url: str, super_stream: str, if_exists: bool) -> bool:
    async with connect(url) as environment:
        try:
            await require_super_stream(environment, super_stream)
        except StreamDoesNotExist:
            if if_exists:
                return False
        with explain_missing(super_stream):
            await environment.delete_super_stream(super_stream, missing_ok=if_exists)
    return True


@app.command(
    "list",
    epilog=examples(
        "flowstream super-streams list",
        "flowstream super-streams list --management http://guest:guest@localhost:15672 --json",
    ),
)
def list_(
    management: ManagementUrl = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the super streams of the virtual host.

    The stream protocol has no command for this, so the list comes from RabbitMQ's management API:
    at --management, or on port 15672 (15671 for TLS) of the broker's host, if it is that broker's.
    """
    found = ask_for_list(url, management, Management.super_streams)
    rows = [{"super_stream": name} for name in found]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["super_stream"], empty="the virtual host has no super streams")


@app.command(
    "list-partitions",
    epilog=examples(
        "flowstream super-streams list-partitions orders",
        "flowstream super-streams list-partitions orders --json",
    ),
)
def list_partitions(super_stream: Name, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the partitions of a super stream in order, with their offsets and nodes."""
    rows = run_async(_partitions, url, super_stream)
    if json:
        print_json(rows)
    else:
        columns = ["number", "stream", "first_offset", "last_offset", "leader", "replicas"]
        print_rows(rows, columns, empty="")


async def _partitions(url: str, super_stream: str) -> list[dict[str, Any]]:
    async with connect(url) as environment:
        streams = await require_super_stream(environment, super_stream)
        return [
            {"number": number, **await stats_of(environment, stream)}
            for number, stream in enumerate(streams)
        ]


@app.command(
    epilog=examples(
        "flowstream super-streams route orders customer-42",
        "flowstream super-streams route orders eu us --json",
    )
)
def route(
    super_stream: Name,
    keys: Annotated[list[str], typer.Argument(metavar="KEY", help="One or more keys.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show the partition of a key: by its hash, and by the bindings of routing keys.

    Publishers use the hash unless they are configured to route by key.
    """
    rows = run_async(_route, url, super_stream, keys)
    if json:
        print_json(rows)
    else:
        shown = [{**row, "by_key": ", ".join(row["by_key"]) or None} for row in rows]
        print_rows(shown, ["key", "by_hash", "by_key"], empty="")


async def _route(url: str, super_stream: str, keys: list[str]) -> list[dict[str, Any]]:
    async with connect(url) as environment:
        streams = await require_super_stream(environment, super_stream)
        return [
            {
                "key": key,
                "by_hash": hash_route(key, streams),
                "by_key": await environment.route(key, super_stream),
            }
            for key in keys
        ]
