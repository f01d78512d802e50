"""`flowstream super-streams create|delete|list|list-partitions|route`."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

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
from flowstream.cli.parser.options import (
    confirm,
    retention_arguments,
)
from flowstream.cli.running.copying import Copy, check_copy, copy_stream, is_shared
from flowstream.cli.running.start import parse_messages
from flowstream.client import Environment, hash_route
from flowstream.errors import AccessRefused, NotSupported, StreamDoesNotExist


def create(
    super_stream: str,
    *,
    partitions: int | None,
    key: list[str] | None,
    source: str | None,
    until_idle: bool,
    discard: list[str] | None,
    max_bytes: int | None,
    max_age: timedelta | None,
    segment_bytes: int | None,
    if_missing: bool,
    url: str,
) -> None:
    field = None if source is None else check_copy(source, super_stream, key)
    if source is None and key and partitions is not None:
        raise CommandError("--partitions and --key exclude each other", ExitCode.USAGE)
    for option, given in (("--until-idle", until_idle), ("--discard", discard)):
        if source is None and given:
            raise CommandError(f"{option} is only for --from", ExitCode.USAGE)
    left_out = parse_messages(discard)
    shared = source is not None and run_async(is_shared, url, source)
    arguments = retention_arguments(max_bytes, max_age, segment_bytes)
    arguments["partitions"] = (key if field is None else None) or partitions or 3
    if_missing = if_missing or source is not None  # the same command continues a copy
    streams, existed = run_async(_create, url, super_stream, arguments, if_missing)
    say(f"{super_stream} {'exists' if existed else 'created'}: {', '.join(streams)}")
    if source is not None and field is not None:
        if partitions not in (None, len(streams)):
            raise CommandError(
                f"{super_stream} has {len(streams)} partitions, and not {partitions}: omit "
                "--partitions to copy to it, or give another name",
                ExitCode.USAGE,
            )
        copy = Copy(source, super_stream, field, shared=shared, follow=not until_idle)
        copy_stream(copy, url=url, discard=left_out)


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


def delete(super_stream: str, yes: bool, if_exists: bool, url: str) -> None:
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


def list_(management: str | None, url: str, json: bool) -> None:
    found = ask_for_list(url, management, Management.super_streams)
    rows = [{"super_stream": name} for name in found]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ["super_stream"], empty="the virtual host has no super streams")


def list_partitions(super_stream: str, url: str, json: bool) -> None:
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


def route(super_stream: str, keys: list[str], url: str, json: bool) -> None:
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
