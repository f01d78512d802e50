"""Whether a reader of a stream is running, before its stored offset is changed.

The stream protocol does not list consumers, so a reader is detected in three ways:

    its monitor      at the given addresses, or on 127.0.0.1:9464: certain, for that run, unless it
                     uses another broker
    management API   of RabbitMQ with the plugin rabbitmq_stream_management: consumers by their name
                     or their connection's name; certain for pipelines with the default name
    its commits      the stored offset changes: on every broker, but only while there is work

An idle reader is not detected if its monitor is not asked and the broker has no such API. The API
is used only if it belongs to the broker that has the offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from flowstream.cli.connection.find_management import management_of
from flowstream.cli.connection.identity import identity_of
from flowstream.cli.connection.management import Management
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note
from flowstream.cli.output.progress import doing
from flowstream.cli.readers.monitor_client import DEFAULT_ADDRESS, MonitorUnavailable, snapshot
from flowstream.client import Address, Environment, StreamUrl

T = TypeVar("T")

LOOK = 1.0
"""Seconds between two reads of the stored offsets."""


@dataclass(frozen=True, slots=True)
class ReaderQuery:
    """Which reader to look for: of `streams` (`name` or its partitions), under `reference`.

    `monitors` are asked instead of the default address. The management API is at `management`, or
    beside the broker. Stored offsets are watched for `watch` seconds.
    """

    url: str = field(repr=False)
    reference: str
    name: str
    streams: tuple[str, ...]
    monitors: tuple[Address, ...] = ()
    management: str | None = field(default=None, repr=False)
    watch: float = 6.0


@dataclass(frozen=True, slots=True)
class ReaderReport:
    """What was found.

    `seen` says in words how a reader was detected. `asked` is what listed all consumers, and
    `blind` the reason if nothing could list them.
    """

    seen: str | None
    asked: str = ""
    blind: str = ""


async def running_reader(environment: Environment, query: ReaderQuery) -> ReaderReport:
    """Look for the reader in all three ways, the fast ones first.

    Raises CommandError if a management API that the user named does not answer.
    """
    found = await _by_monitor(query, await identity_of(environment, query.url))
    if found is not None:
        return ReaderReport(found)
    asked, blind = "", ""
    try:
        api = await management_of(environment, query.url, query.management)
        found = reader_among(await _consumers(api, query), query)
        if found is not None:
            return ReaderReport(found)
        asked = f"the management API at {api.base}"
        if not await _answer(api, Management.sees_everything):
            asked, blind = "", f"{asked} does not show consumers of other users to {api.user!r}"
    except CommandError as error:
        if query.management:
            raise
        blind = str(error)
    return ReaderReport(await _by_commits(environment, query), asked, blind)


async def refuse_running(environment: Environment, query: ReaderQuery, consequence: str) -> None:
    """Raise CommandError if the reader is running, with what would follow from the command.

    A note says what was asked, or that a reader without work cannot be detected.
    """
    with doing(f"checking whether {query.reference} is running"):
        answer = await running_reader(environment, query)
    if answer.seen is not None:
        raise CommandError(
            f"{answer.seen}; stop it first, or {consequence} (--force overrides)", ExitCode.IN_USE
        )
    if answer.blind:
        note(
            f"no running reader was found, but an idle one cannot be detected: {answer.blind}; "
            "stop the reader first, or give its live page with --http, or the API with --management"
        )
    else:
        note(f"no running reader was found (asked {answer.asked})")


async def _by_monitor(query: ReaderQuery, broker: str) -> str | None:
    """How a monitor shows the reader. One that does not answer belongs to a run that has ended."""
    for address in query.monitors or (DEFAULT_ADDRESS,):
        try:
            board = await to_thread.run_sync(snapshot, address, abandon_on_cancel=True)
        except MonitorUnavailable:
            continue
        phase = phase_of(board, query, broker)
        if phase is not None:
            return f"the run at http://{address}/ has the pipeline {query.reference} ({phase})"
    return None


def phase_of(board: Mapping[str, Any], query: ReaderQuery, broker: str = "") -> str | None:
    """The phase of the reader in a monitor's snapshot; None if it is not there. Pure.

    A run of another `broker` has another reader, of the same name. One whose broker is not known
    may be the reader.
    """
    if broker and board.get("broker", broker) not in ("", broker):
        return None
    for pipeline in board["pipelines"]:
        streams = {it["stream"] for it in pipeline["streams"]}
        mine = not streams or streams & {query.name, *query.streams}
        if pipeline["name"] == query.reference and mine:
            return str(pipeline["phase"])
    return None


async def _consumers(api: Management, query: ReaderQuery) -> list[dict[str, Any]]:
    """All consumers of the virtual host."""
    vhost = StreamUrl.parse(query.url).virtual_host
    return await _answer(api, lambda it: it.stream_consumers(vhost))


async def _answer(api: Management, ask: Callable[[Management], T]) -> T:
    return await to_thread.run_sync(api.answer, ask, abandon_on_cancel=True)


def reader_among(consumers: Iterable[Mapping[str, Any]], query: ReaderQuery) -> str | None:
    """How the management API shows the reader; None if it does not. Pure."""
    for it in consumers:
        stream = it["queue"]["name"]
        name = it.get("properties", {}).get("name")
        connection = str(it.get("connection", ""))
        mine = connection.startswith(f"flowstream {query.reference}-")
        if stream in query.streams and (name == query.reference or (not name and mine)):
            where = dict(it["connection_details"]).get("name") or "a new connection"
            return f"the broker has a consumer of {stream} for {query.reference} ({where})"
    return None


async def _by_commits(environment: Environment, query: ReaderQuery) -> str | None:
    async def stored() -> dict[str, int | None]:
        return {
            stream: await environment.query_offset(query.reference, stream)
            for stream in query.streams
        }

    before = await stored()
    end = anyio.current_time() + query.watch
    while (left := end - anyio.current_time()) > 0:
        await anyio.sleep(min(LOOK, left))
        for stream, offset in (await stored()).items():
            if offset != before[stream]:
                return (
                    f"{query.reference} stores offsets on {stream} now "
                    f"({_text(before[stream])} -> {_text(offset)})"
                )
    return None


def _text(offset: int | None) -> str:
    return "none" if offset is None else f"{offset:,}"
