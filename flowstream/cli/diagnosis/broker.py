"""What `flowstream doctor` checks of the broker: connection, login, features, nodes, clock."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime

import anyio
from anyio import to_thread

from flowstream.cli.connection.connect import Connection
from flowstream.cli.connection.find_management import management_of
from flowstream.cli.connection.listener import what_listens
from flowstream.cli.connection.management import Management
from flowstream.cli.connection.streams import partitions_of
from flowstream.cli.diagnosis.findings import Finding, bad, ok, warn
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code
from flowstream.cli.output.console import short_size
from flowstream.cli.output.progress import doing
from flowstream.client import Address, Environment, ServerInfo, StreamNodes, StreamUrl, Tls
from flowstream.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    FlowstreamError,
    VirtualHostAccessFailed,
)
from flowstream.protocol import Key

BROKER = "broker"
REACH_TIMEOUT = 5.0
SKEW = 5.0
"""The tolerated difference of clocks in seconds. The management API's time has no fractions."""

FEATURES = (
    ("stream statistics, single active consumers", Key.STREAM_STATS, 1, "3.11"),
    ("filtering", Key.PUBLISH, 2, "3.13"),
    ("creating super streams", Key.CREATE_SUPER_STREAM, 1, "3.13"),
    ("resolving offsets", Key.RESOLVE_OFFSET_SPEC, 1, "4.3"),
)
"""(feature, command that it needs, version of the command, first RabbitMQ that has it)."""


async def examine(
    connection: Connection, streams: list[str], management: str | None
) -> list[Finding]:
    """All findings, up to the first that makes further checks impossible."""
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
    where = str(server.address)
    how = "TLS, certificate verified" if url.tls else "not encrypted"
    options = connection.options.get("tls")
    if options is not None and not options.verify:
        yield warn(
            BROKER, "tls", "the broker's certificate is not verified", "remove tls_verify = false"
        )
        how = "TLS"
    yield ok(BROKER, "connection", f"{where} in {seconds * 1000:.0f} ms ({how})")
    sasl = "EXTERNAL" if "credentials" in connection.options else f"PLAIN as {url.user}"
    yield ok(BROKER, "login", f"{sasl}, virtual host {url.virtual_host}")
    product = server.properties.get("product", "a server without a name")
    yield ok(BROKER, "version", f"{product} {server.properties.get('version', '')}".strip())


async def _listener(url: StreamUrl) -> list[Finding]:
    """What listens at an address where no broker answers."""
    try:
        async with await anyio.connect_tcp(url.host, url.port):
            pass
    except OSError:
        return []
    what = await what_listens(url.host, url.port)
    return [bad(BROKER, "listener", f"{url.address} is {what}")] if what else []


def _closed(error: FlowstreamError, url: StreamUrl) -> Finding:
    """The step that failed, with its remedy."""
    if isinstance(error, AuthenticationFailed):
        return bad(BROKER, "login", error, "correct the user and password in the URL, or sasl")
    if isinstance(error, VirtualHostAccessFailed):
        return bad(BROKER, "login", error, f"rabbitmqctl set_permissions -p VHOST {url.user} ...")
    if isinstance(error, ConnectionFailed) and isinstance(error.__cause__, ssl.SSLError):
        authority = "set tls_ca (FLOWSTREAM_TLS_CA, --tls-ca) to the certificates of its authority"
        untrusted = isinstance(error.__cause__, ssl.SSLCertVerificationError)
        port = "correct the port, or the scheme: rabbitmq-stream:// is without TLS"
        return bad(BROKER, "connection", error, authority if untrusted else port)
    if isinstance(error, ConnectionFailed):
        port = "the stream plugin (rabbitmq-plugins enable rabbitmq_stream)"
        remedy = f"start the broker with {port}, or an embedded one with `flowstream broker`"
        return bad(BROKER, "connection", error, remedy)
    return bad(BROKER, "connection", error)


def features(commands: Mapping[Key, int]) -> Iterator[Finding]:
    """The features that the server supports. RabbitMQ before 3.11 does not list its commands."""
    if not commands:
        text = "the broker does not list its commands: RabbitMQ is older than 3.11"
        yield warn(
            BROKER, "commands", text, "upgrade RabbitMQ: filtering and super streams need 3.13"
        )
        return
    yield ok(BROKER, "commands", f"{len(commands)} known")
    for gives, command, version, since in FEATURES:
        known = commands.get(command, 0) >= version
        yield ok(BROKER, gives, "yes" if known else f"no: needs RabbitMQ {since}")


def _limits(server: ServerInfo) -> Iterator[Finding]:
    frame = short_size(server.frame_max) if server.frame_max else "not limited"
    yield ok(BROKER, "frame_max", f"{frame}: the largest message must fit")
    if server.heartbeat:
        yield ok(BROKER, "heartbeat", f"every {server.heartbeat} s")
    else:
        text = "off: a lost connection is noticed late or never"
        yield warn(BROKER, "heartbeat", text, "set heartbeat on the broker and in the settings")


async def _nodes(
    environment: Environment, server: ServerInfo, streams: list[str]
) -> AsyncIterator[Finding]:
    """Whether the advertised addresses are reachable, which publishers and consumers connect to."""
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
    """Add the nodes that have the stream, with their role."""
    if held.leader is not None:
        nodes.setdefault(held.leader, f"leader of {stream}")
    for replica in held.replicas:
        nodes.setdefault(replica, f"replica of {stream}")


async def _reached(node: Address, what: str) -> Finding:
    where = str(node)
    try:
        with anyio.fail_after(REACH_TIMEOUT), doing(f"connecting to {where} ({what})"):
            stream = await anyio.connect_tcp(node.host, node.port)
    except (OSError, TimeoutError) as error:
        reason = f"no answer in {REACH_TIMEOUT:g} s" if isinstance(error, TimeoutError) else error
        return warn(
            BROKER,
            "advertised",
            f"{where} ({what}) is not reachable from here: {reason}",
            "set stream.advertised_host and stream.advertised_port in rabbitmq.conf, or use "
            "Environment(address_resolver=...)",
        )
    await anyio.aclose_forcefully(stream)
    return ok(BROKER, "advertised", f"{where} ({what}) is reachable")


async def _clock(
    environment: Environment, connection: Connection, management: str | None
) -> Finding:
    """The difference of the broker's clock and this machine's, from the management API."""
    tls = connection.options.get("tls")
    try:
        api = await management_of(
            environment, connection.url, management, tls.ca if isinstance(tls, Tls) else None
        )
        with doing(f"asking {api.base} for the time"):
            return await to_thread.run_sync(api.answer, clock, abandon_on_cancel=True)
    except CommandError as error:
        return ok(BROKER, "clock", f"not measured: {error}")


def clock(api: Management) -> Finding:
    """The finding on the clock. Blocks: call it in a thread. Raises CommandError."""
    before = time.time()
    theirs = api.date()
    if theirs is None:
        return ok(BROKER, "clock", f"not measured: {api.base} sends no Date")
    found = clock_skew(parsedate_to_datetime(theirs), (before + time.time()) / 2)
    return replace(found, detail=f"{found.detail} (asked {api.base})")


def clock_skew(theirs: datetime, ours: float) -> Finding:
    """The finding on two clocks. Lag in seconds and retention by age use the broker's."""
    skew = theirs.timestamp() + 0.5 - ours
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        text = (
            f"the broker's clock is {abs(skew):.0f} s {ahead} this machine's: lag in seconds is "
            "wrong by as much"
        )
        return warn(BROKER, "clock", text, "synchronise both clocks with NTP")
    return ok(BROKER, "clock", f"within {SKEW:g} s of the broker's")
