"""The broker that a run uses: the configured one, one that it starts, or one that it finds.

Without an address, a run uses the embedded broker of this folder if one is running, else a broker
on the default port of this machine, else it starts an embedded broker on that port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

import anyio
from anyio import to_thread

from flowstream.broker import PRODUCT, LocalBroker
from flowstream.cli.configuration.settings import Origin, settings
from flowstream.cli.connection.connect import Connection, connection, local
from flowstream.cli.connection.embedded import DATA, broker_of_folder, own_broker
from flowstream.cli.connection.listener import what_listens
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code
from flowstream.cli.output.console import note
from flowstream.cli.output.safe_text import shortened
from flowstream.client import DEFAULT_URL, ServerInfo, StreamUrl
from flowstream.errors import ConnectionFailed, FlowstreamError
from flowstream.version import __version__

HOST, PORT = "localhost", 5552
PATIENCE = 2.0
"""Seconds for a listener on the default port to answer as a broker."""
LONGEST = 100
"""Characters of a server's name or version."""
PLACES = ("flag", "environment", ".env", "pyproject.toml")
"""The places of a setting, the one with the highest precedence first."""

OTHERS = "give the address of a broker with --url or FLOWSTREAM_URL, or start one with --embedded"


def always_there() -> None:
    """Check nothing: the client reports when a broker is lost that the run did not start."""


class Source(Enum):
    """Where a run's broker comes from."""

    NAMED = "named"
    EMBEDDED = "embedded"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class BrokerChoice:
    """The broker according to command line and settings. `by` is the origin of its address."""

    source: Source
    connection: Connection
    by: str = ""


def broker_at(url: str) -> BrokerChoice:
    """The broker at the address that a command other than `run` has got, with its origin."""
    configured = settings()
    if url == configured.given("url"):
        by = str(configured.origins["url"])
    elif (found := broker_of_folder()) is not None and url == found.url:
        by = f"the run in this folder, process {found.process}"
    else:
        by = "the default" if url == DEFAULT_URL else "--url"
    return BrokerChoice(Source.NAMED, connection(url), by)


@dataclass(frozen=True, slots=True)
class RunBroker:
    """The broker of a run.

    `lines` describe it: first what it is and where its data is. With `creates`, missing streams are
    created without `--create`. `remedy` says what to do if a stream is missing. `check` raises once
    a broker that the run started has ended.
    """

    connection: Connection
    lines: tuple[str, ...]
    creates: bool = False
    remedy: str = ""
    check: Callable[[], None] = always_there


def decide(url: Origin | None, embedded: Origin | None) -> Source:
    """The source of the broker: the place with the higher precedence decides.

    Raises CommandError if one place gives an address and also requests an embedded broker.
    """
    if url is None or embedded is None:
        return Source.NAMED if url else Source.EMBEDDED if embedded else Source.ANY
    ours, theirs = PLACES.index(embedded.place), PLACES.index(url.place)
    if ours == theirs:
        raise CommandError(
            f"{embedded} and {url} exclude each other: --embedded starts a broker for the run, and "
            "--url gives the address of another; omit one of them",
            ExitCode.USAGE,
        )
    return Source.EMBEDDED if ours < theirs else Source.NAMED


@asynccontextmanager
async def broker_for_run(choice: BrokerChoice) -> AsyncIterator[RunBroker]:
    """The broker of a run, for as long as the run takes.

    Raises CommandError, or an error of the client, if no broker can be used.
    """
    if choice.source is Source.NAMED:
        yield await _named(choice)
    elif choice.source is Source.EMBEDDED:
        async with own_broker(0) as own:
            more = f"commands in this folder use it too; elsewhere use --url {own.where.url}"
            unused = f"; {choice.by} is not used in this run" if choice.by else ""
            yield await _embedded(own.where, "embedded", more + unused, own.check)
    elif (found := await to_thread.run_sync(broker_of_folder)) is not None:
        how = f"embedded, run in this folder by process {found.process}"
        yield await _embedded(found, how, "it ends with that process")
    elif await _something_listens():
        yield await _found(choice.connection)
    else:
        async with own_broker(PORT) as own:
            why = (
                "no address was given (--url or FLOWSTREAM_URL) and no broker listens on "
                f"{HOST}:{PORT}"
            )
            yield await _embedded(own.where, "embedded", why, own.check)


async def _embedded(
    broker: LocalBroker, how: str, more: str, check: Callable[[], None] = always_there
) -> RunBroker:
    where = f"flowstream {__version__} at {broker.address}"
    line = f"broker: {where}, {how}, data in {await to_thread.run_sync(DATA.resolve)}"
    return RunBroker(local(broker.url), (line, more), creates=True, check=check)


async def _named(choice: BrokerChoice) -> RunBroker:
    server = await _server(choice.connection)
    line = _line(choice.connection, server, f"address from {choice.by}")
    where = _where(server)
    return RunBroker(
        choice.connection,
        (line,),
        remedy=f"the broker is {where}, with its address from {choice.by}; --create creates "
        "missing streams",
    )


async def _found(connection: Connection) -> RunBroker:
    """The broker on the default port, if what listens there is a broker that accepts the login."""
    where = f"{HOST}:{PORT}"
    try:
        try:
            with anyio.fail_after(PATIENCE):
                server = await _server(connection)
        except (ConnectionFailed, TimeoutError):
            note(f"{where} does not answer like a broker; checking what listens there")
            what = await what_listens(HOST, PORT)
            if what is not None:
                raise CommandError(
                    f"no address was given, and {where} is not a broker: {what} listens there; "
                    f"{OTHERS}",
                    ExitCode.CONNECTION,
                ) from None
            server = await _server(connection)
    except CommandError:
        raise
    except FlowstreamError as error:
        text = f"{error}; no address was given, so the broker on {where} was used; {OTHERS}"
        raise CommandError(text, exit_code(error)) from error
    return RunBroker(
        connection,
        (
            _line(connection, server, "used because no address was given"),
            OTHERS,
        ),
        remedy=f"the broker is {_where(server)}, used because no address was given; --create "
        "creates missing streams there, --embedded starts another broker for the run",
    )


async def _server(connection: Connection) -> ServerInfo:
    async with connection.opened(name="flowstream run") as environment:
        return await environment.server_info()


def _line(connection: Connection, server: ServerInfo, how: str) -> str:
    vhost = StreamUrl.parse(connection.url).virtual_host
    cluster = None if _is_embedded(server) else server.properties.get("cluster_name")
    data = f"the cluster {shortened(cluster, LONGEST)}" if cluster else "that broker"
    part = "" if vhost == "/" else f"virtual host {vhost} of "
    return f"broker: {_where(server)}, {how}, data in {part}{data}"


def _where(server: ServerInfo) -> str:
    names = [server.properties.get(name, "") for name in ("product", "version")]
    if _is_embedded(server):
        return f"an embedded broker, which behaves like RabbitMQ {names[1]}, at {server.address}"
    product = " ".join(shortened(name, LONGEST) for name in names if name)
    return f"{product or 'a server without a name'} at {server.address}"


def _is_embedded(server: ServerInfo) -> bool:
    return server.properties.get("product") == PRODUCT


async def _something_listens() -> bool:
    """Whether anything listens on the default port."""
    try:
        stream = await anyio.connect_tcp(HOST, PORT)
    except OSError:
        return False
    await anyio.aclose_forcefully(stream)
    return True
