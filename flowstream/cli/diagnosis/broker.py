"""What `flowstream doctor` sees of the broker: reached, entered, understood, told the time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from flowstream.cli.connection.listener import what_listens
from flowstream.cli.connection.management import Management, management_of
from flowstream.cli.diagnosis.findings import Finding, bad, ok, warn
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code
from flowstream.cli.output.console import short_size
from flowstream.cli.output.progress import doing
from flowstream.cli.readers.position import partitions_of
from flowstream.client import Address, Environment, ServerInfo, StreamNodes, StreamUrl, Tls
from flowstream.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    FlowstreamError,
    VirtualHostAccessFailed,
)
from flowstream.protocol import Key

if TYPE_CHECKING:
    from flowstream.cli.connection.connect import Connection

BROKER = "broker"
REACH_TIMEOUT = 5.0
SKEW = 5.0
"""Seconds; the management API tells its time to the second."""

FEATURES = (
    ("stream statistics, single active consumers", Key.STREAM_STATS, 1, "3.11"),
    ("filtering", Key.PUBLISH, 2, "3.13"),
    ("creating super streams", Key.CREATE_SUPER_STREAM, 1, "3.13"),
    ("resolving offsets", Key.RESOLVE_OFFSET_SPEC, 1, "4.3"),
)
"""(what a command gives, the command, its version, the RabbitMQ that brought it)."""


async def examine(
    connection: Connection, streams: list[str], management: str | None
) -> list[Finding]:
    """Every finding; after the first that is in the way of others there are no others."""
    findings: list[Finding] = []
    started = time.monotonic()
    try:
        async with connection.opened(name="flowstream doctor") as environment:
            server = await environment.server_info()
            findings += _entered(connection, server, time.monotonic() - started)
            findings += features(server.commands)
            findings += _limits(server)
            findings += [found async for found in _nodes(environment, server, streams)]
            findings.append(await _clock(environment, connection, management))
    except FlowstreamError as error:
        url = StreamUrl.parse(connection.url)
        if isinstance(error, ConnectionFailed) and not url.tls:
            findings += await _listener(url)
        findings.append(_closed(error, url))
        return findings
    return findings


def _entered(connection: Connection, server: ServerInfo, seconds: float) -> Iterator[Finding]:
    url = StreamUrl.parse(connection.url)
    where = f"{server.address.host}:{server.address.port}"
    how = "TLS, certificate verified" if url.tls else "not encrypted"
    options = connection.options.get("tls")
    if options is not None and not options.verify:
        yield warn(BROKER, "tls", "its certificate is not verified", "remove tls_verify = false")
        how = "TLS"
    yield ok(BROKER, "connection", f"{where} in {seconds * 1000:.0f} ms ({how})")
    sasl = "EXTERNAL" if "credentials" in connection.options else f"PLAIN as {url.user}"
    yield ok(BROKER, "login", f"{sasl}, virtual host {url.virtual_host}")
    product = server.properties.get("product", "a server without a name")
    yield ok(BROKER, "version", f"{product} {server.properties.get('version', '')}".strip())


async def _listener(url: StreamUrl) -> list[Finding]:
    """What is at an address that is no broker's, where something is."""
    try:
        async with await anyio.connect_tcp(url.host, url.port):
            pass
    except OSError:
        return []
    what = await what_listens(url.host, url.port)
    return [bad(BROKER, "listener", f"{url.address} is {what}")] if what else []


def _closed(error: FlowstreamError, url: StreamUrl) -> Finding:
    """The step that failed, and what may be done."""
    if isinstance(error, AuthenticationFailed):
        return bad(BROKER, "login", error, "correct user and password of the URL, or sasl")
    if isinstance(error, VirtualHostAccessFailed):
        return bad(BROKER, "login", error, f"rabbitmqctl set_permissions -p VHOST {url.user} ...")
    if isinstance(error, ConnectionFailed):
        port = "the stream plugin (rabbitmq-plugins enable rabbitmq_stream)"
        remedy = f"is the broker up, with {port}? `flowstream broker` starts an embedded one"
        return bad(BROKER, "connection", error, remedy)
    return bad(BROKER, "connection", error)


def features(commands: Mapping[Key, int]) -> Iterator[Finding]:
    """What the server's commands allow. RabbitMQ below 3.11 does not tell."""
    if not commands:
        text = "it does not tell its commands: RabbitMQ is older than 3.11"
        yield warn(BROKER, "commands", text, "upgrade it: filtering and super streams need 3.13")
        return
    yield ok(BROKER, "commands", f"{len(commands)} known")
    for gives, command, version, since in FEATURES:
        known = commands.get(command, 0) >= version
        yield ok(BROKER, gives, "yes" if known else f"no: RabbitMQ {since} brought it")


def _limits(server: ServerInfo) -> Iterator[Finding]:
    frame = short_size(server.frame_max) if server.frame_max else "not limited"
    yield ok(BROKER, "frame_max", f"{frame}: no message may be larger")
    if server.heartbeat:
        yield ok(BROKER, "heartbeat", f"every {server.heartbeat} s")
    else:
        text = "off: a connection that died is noticed late or never"
        yield warn(BROKER, "heartbeat", text, "set heartbeat on the broker and here")


async def _nodes(
    environment: Environment, server: ServerInfo, streams: list[str]
) -> AsyncIterator[Finding]:
    """Publishers and consumers connect to the address that a stream's node advertises."""
    nodes: dict[Address, str] = {}
    if server.advertised is not None:
        nodes[server.advertised] = "this node"
    for name in streams:
        try:
            partitions = await partitions_of(environment, name)
        except FlowstreamError as error:
            remedy = f"flowstream streams create {name}, or super-streams create {name}"
            missing = exit_code(error) is ExitCode.STREAM_MISSING
            yield bad(BROKER, "stream", error, remedy if missing else "")
            continue
        if partitions is not None:
            yield ok(BROKER, "stream", f"{name} is a super stream: {', '.join(partitions)}")
        for stream in partitions or [name]:
            try:
                held = await environment.metadata(stream)
            except FlowstreamError as error:
                yield bad(BROKER, "stream", error)
                continue
            _add(nodes, held, stream)
    for node, what in nodes.items():
        yield await _reached(node, what)


def _add(nodes: dict[Address, str], held: StreamNodes, stream: str) -> None:
    """The nodes that have the stream, with what they are to it."""
    if held.leader is not None:
        nodes.setdefault(held.leader, f"leader of {stream}")
    for replica in held.replicas:
        nodes.setdefault(replica, f"replica of {stream}")


async def _reached(node: Address, what: str) -> Finding:
    where = f"{node.host}:{node.port}"
    try:
        with anyio.fail_after(REACH_TIMEOUT), doing(f"connecting to {where} ({what})"):
            stream = await anyio.connect_tcp(node.host, node.port)
    except (OSError, TimeoutError) as error:
        reason = f"no answer in {REACH_TIMEOUT:g} s" if isinstance(error, TimeoutError) else error
        return warn(
            BROKER,
            "advertised",
            f"{where} ({what}) is not reachable from here: {reason}",
            "set advertised_host and advertised_port of the broker (stream.advertised_host in "
            "rabbitmq.conf), or give Environment(address_resolver=...)",
        )
    await anyio.aclose_forcefully(stream)
    return ok(BROKER, "advertised", f"{where} ({what}) is reachable")


async def _clock(
    environment: Environment, connection: Connection, management: str | None
) -> Finding:
    """How far the broker's clock is from this one, by the management API."""
    tls = connection.options.get("tls")
    try:
        api = await management_of(
            environment, connection.url, management, tls.ca_file if isinstance(tls, Tls) else None
        )
        with doing(f"asking {api.base} for the time"):
            return await to_thread.run_sync(api.answer, clock, abandon_on_cancel=True)
    except CommandError as error:
        return ok(BROKER, "clock", f"not measured: {error}")


def clock(api: Management) -> Finding:
    """Blocks; raises CommandError."""
    before = time.time()
    theirs = api.date()
    if theirs is None:
        return ok(BROKER, "clock", f"not measured: {api.base} does not say the time")
    found = clock_skew(parsedate_to_datetime(theirs), (before + time.time()) / 2)
    return replace(found, detail=f"{found.detail} (asked {api.base})")


def clock_skew(theirs: datetime, ours: float) -> Finding:
    """Lag in seconds and retention by age are measured by the broker's clock."""
    skew = theirs.timestamp() + 0.5 - ours
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        text = f"the broker's is {abs(skew):.0f} s {ahead} this one: lag in seconds is wrong by it"
        return warn(BROKER, "clock", text, "synchronise both with NTP")
    return ok(BROKER, "clock", f"agrees with the broker's to {SKEW:g} s")
