"""`flowstream super-streams create|delete|list|list-partitions|route`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import print_json, print_rows, say
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

app = new_app(
    "super-streams",
    "Create, delete and inspect super streams: one stream in several partitions.",
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
            help="How many: NAME-0, NAME-1 ..., chosen by a key's hash. 3 unless said.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="A partition NAME-KEY for this routing key instead. Repeatable."),
    ] = None,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    segment_bytes: SegmentBytes = None,
    if_missing: IfMissing = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a super stream with its partitions (RabbitMQ 3.13 or later).

    The number of partitions is for ever: with another one keys would change their partition.
    """
    if key and partitions is not None:
        raise CommandError("--partitions and --key exclude each other", ExitCode.USAGE)
    arguments = retention(max_bytes=max_bytes, max_age=max_age, segment_bytes=segment_bytes)
    arguments["partitions"] = key or partitions or 3
    streams, existed = run_async(_create, url, super_stream, arguments, if_missing)
    say(f"{super_stream} {'exists' if existed else 'created'}: {', '.join(streams)}")


async def _create(
    url: str, super_stream: str, arguments: dict[str, Any], if_missing: bool
) -> tuple[list[str], bool]:
    from flowstream.cli.commands.streams import existing_is_told
    from flowstream.cli.connection.connect import connect
    from flowstream.errors import StreamDoesNotExist

    async with connect(url) as environment:
        if if_missing:
            try:
                return await environment.partitions(super_stream), True
            except StreamDoesNotExist:
                pass
        if await environment.stream_exists(super_stream):
            raise CommandError(
                f"{super_stream} is a stream; give the super stream another name", ExitCode.USAGE
            )
        with existing_is_told(super_stream):
            await environment.create_super_stream(super_stream, exist_ok=if_missing, **arguments)
        return await environment.partitions(super_stream), False


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
    from flowstream.cli.commands.streams import missing_is_told
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import require_super_stream
    from flowstream.errors import StreamDoesNotExist

    async with connect(url) as environment:
        try:
            await require_super_stream(environment, super_stream)
        except StreamDoesNotExist:
            if if_exists:
                return False
        with missing_is_told(super_stream):
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

    The stream protocol has no command for this, so RabbitMQ's management API is asked: at
    --management, or on port 15672 (15671 for TLS) of the broker's host, if it is that broker's.
    """
    from flowstream.cli.connection.management import Management, ask_for_list

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
    """Show the partitions of a super stream in their order, and what each holds."""
    rows = run_async(_partitions, url, super_stream)
    if json:
        print_json(rows)
    else:
        columns = ["number", "stream", "first_offset", "last_offset", "leader", "replicas"]
        print_rows(rows, columns, empty="")


async def _partitions(url: str, super_stream: str) -> list[dict[str, Any]]:
    from flowstream.cli.commands.streams import stats_of
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import require_super_stream

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
    """Show which partition a key goes to: by its hash, and by the bindings of routing keys.

    Publishers use the hash unless they were told to route by key.
    """
    rows = run_async(_route, url, super_stream, keys)
    if json:
        print_json(rows)
    else:
        shown = [{**row, "by_key": ", ".join(row["by_key"]) or None} for row in rows]
        print_rows(shown, ["key", "by_hash", "by_key"], empty="")


async def _route(url: str, super_stream: str, keys: list[str]) -> list[dict[str, Any]]:
    from flowstream.cli.connection.connect import connect
    from flowstream.cli.readers.position import require_super_stream
    from flowstream.client import hash_route

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
