"""Which broker a run uses: one that was named, one of its own, or the one that is found.

Where none is named it is the embedded broker of this folder, if one runs; else the one on this
machine's default port; else one of the run's own is started there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from flowstream import __version__
from flowstream.cli.connection.connect import Connection, local
from flowstream.cli.connection.embedded import own_broker
from flowstream.cli.connection.listener import what_listens
from flowstream.cli.connection.nearby import DATA, nearby
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code
from flowstream.cli.output.console import note
from flowstream.cli.output.safe_text import shortened
from flowstream.client import StreamUrl
from flowstream.errors import ConnectionFailed, FlowstreamError

if TYPE_CHECKING:
    from flowstream.broker import LocalBroker
    from flowstream.cli.configuration.settings import Origin
    from flowstream.client import ServerInfo

HOST, PORT = "localhost", 5552
PATIENCE = 2.0
"""Seconds that whatever listens on the default port gets to show that it is a broker."""
LONGEST = 100
"""Characters of what a server says of itself."""
PLACES = ("flag", "environment", ".env", "pyproject.toml")
"""Where a setting may be, the most important first."""

OTHERS = "--url or FLOWSTREAM_URL names one, --embedded starts one for this run"


def always_there() -> None:
    """Of brokers that are not the run's own: the client tells when they go."""


class Source(Enum):
    """Where a run's broker comes from."""

    NAMED = "named"
    EMBEDDED = "embedded"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line and the settings say of the broker; `by` is where an address is."""

    source: Source
    connection: Connection
    by: str = ""


@dataclass(frozen=True, slots=True)
class InUse:
    """The broker of a run. `lines` tell of it, the first one what it is and where its data is;
    `creates` is whether missing streams are made unasked, and `remedy` what to do where one is
    missing. `check`, of one of the run's own, raises once it has ended."""

    connection: Connection
    lines: tuple[str, ...]
    creates: bool = False
    remedy: str = ""
    check: Callable[[], None] = always_there


def decide(url: Origin | None, embedded: Origin | None) -> Source:
    """Who decides: the more important place, of an address and a wish for an embedded broker.

    Raises CommandError where one place says both.
    """
    if url is None or embedded is None:
        return Source.NAMED if url else Source.EMBEDDED if embedded else Source.ANY
    ours, theirs = PLACES.index(embedded.place), PLACES.index(url.place)
    if ours == theirs:
        raise CommandError(
            f"{embedded} and {url} exclude each other: --embedded starts a broker of the run's "
            "own, --url names another; leave one of them out",
            ExitCode.USAGE,
        )
    return Source.EMBEDDED if ours < theirs else Source.NAMED


@asynccontextmanager
async def broker_in_use(choice: Choice) -> AsyncIterator[InUse]:
    """The broker of a run, which is there, for as long as the run takes.

    Raises CommandError or what the client raises where none is there that can be used.
    """
    if choice.source is Source.NAMED:
        yield await _named(choice)
    elif choice.source is Source.EMBEDDED:
        async with own_broker(0) as own:
            more = f"commands in this folder use it too; elsewhere: --url {own.where.url}"
            unused = f"; {choice.by} is not used in this run" if choice.by else ""
            yield await _embedded(own.where, "embedded", more + unused, own.check)
    elif (found := await to_thread.run_sync(nearby)) is not None:
        how = f"embedded, run in this folder by process {found.process}"
        yield await _embedded(found, how, "it ends with that process")
    elif await _somebody_listens():
        yield await _found(choice.connection)
    else:
        async with own_broker(PORT) as own:
            why = f"no broker was named and none is on {HOST}:{PORT} (--url or FLOWSTREAM_URL)"
            yield await _embedded(own.where, "embedded", why, own.check)


async def _embedded(
    broker: LocalBroker, how: str, more: str, check: Callable[[], None] = always_there
) -> InUse:
    where = f"flowstream {__version__} at {broker.address}"
    line = f"broker: {where}, {how}, data in {await to_thread.run_sync(DATA.resolve)}"
    return InUse(local(broker.url), (line, more), creates=True, check=check)


async def _named(choice: Choice) -> InUse:
    server = await _server(choice.connection)
    line = _line(choice.connection, server, f"named by {choice.by}")
    where = _where(server)
    return InUse(
        choice.connection,
        (line,),
        remedy=f"the broker is {where}, named by {choice.by}; --create creates missing streams",
    )


async def _found(connection: Connection) -> InUse:
    """What listens on the default port, if it is a broker that lets us in."""
    where = f"{HOST}:{PORT}"
    try:
        try:
            with anyio.fail_after(PATIENCE):
                server = await _server(connection)
        except (ConnectionFailed, TimeoutError):
            note(f"{where} does not answer as a broker does: looking what is there")
            what = await what_listens(HOST, PORT)
            if what is not None:
                raise CommandError(
                    f"no broker was named, and on {where} there is none: {what} listens there; "
                    f"{OTHERS}",
                    ExitCode.CONNECTION,
                ) from None
            server = await _server(connection)
    except CommandError:
        raise
    except FlowstreamError as error:
        said = f"{error}; this broker was found on {where}, since none was named: {OTHERS}"
        raise CommandError(said, exit_code(error)) from error
    return InUse(
        connection,
        (
            _line(connection, server, "found there since none was named"),
            OTHERS,
        ),
        remedy=f"the broker is {_where(server)}, found there since none was named; --create "
        "creates missing streams there, --embedded runs on a broker of its own",
    )


async def _server(connection: Connection) -> ServerInfo:
    async with connection.opened(name="flowstream run") as environment:
        return await environment.server_info()


def _line(connection: Connection, server: ServerInfo, how: str) -> str:
    vhost = StreamUrl.parse(connection.url).virtual_host
    cluster = server.properties.get("cluster_name")
    data = f"the cluster {shortened(cluster, LONGEST)}" if cluster else "that server"
    part = "" if vhost == "/" else f"virtual host {vhost} of "
    return f"broker: {_where(server)}, {how}, data in {part}{data}"


def _where(server: ServerInfo) -> str:
    names = [server.properties.get(name, "") for name in ("product", "version")]
    product = " ".join(shortened(name, LONGEST) for name in names if name)
    return f"{product or 'a server without a name'} at {server.address}"


async def _somebody_listens() -> bool:
    """Is there a broker (or anything) on the default port?"""
    try:
        stream = await anyio.connect_tcp(HOST, PORT)
    except OSError:
        return False
    await anyio.aclose_forcefully(stream)
    return True
