"""The handshake that makes a usable connection of a byte stream, step by step.

PeerProperties, SaslHandshake, SaslAuthenticate, Tune, Open, and ExchangeCommandVersions where the
server knows it (3.11 and later; an older one closes on unknown commands).
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
from collections.abc import Mapping

import anyio

from flowstream.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    ConnectionFailed,
    FlowstreamError,
    ProtocolError,
    RequestTimeout,
    SaslMechanismNotSupported,
    ServerError,
    VirtualHostAccessFailed,
)
from flowstream.protocol import (
    CHALLENGE,
    CLIENT_VERSIONS,
    Address,
    Code,
    ExchangeCommandVersions,
    ExchangeCommandVersionsResponse,
    Open,
    OpenResponse,
    PeerProperties,
    PeerPropertiesResponse,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
)

from .connection import ClientConnection, raise_for_code
from .credentials import Credentials
from .settings import Settings, log
from .tasks import OwnerEnded, TaskOwner
from .transport import Dial


def this_process() -> str:
    """The name of this process that its connections send to the broker: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


CLIENT_PROPERTIES = {
    "product": "flowstream",
    "platform": f"Python {platform.python_version()}",
    "information": "RabbitMQ Streams client and data pipelines",
    "process": this_process(),
}
os.register_at_fork(after_in_child=lambda: CLIENT_PROPERTIES.update(process=this_process()))


async def open_connection(
    dial: Dial,
    address: Address,
    role: str,
    *,
    name: str,
    virtual_host: str,
    credentials: Credentials,
    settings: Settings,
    owner: TaskOwner,
) -> ClientConnection:
    """Connects, authenticates and opens the virtual host.

    Raises ConnectionFailed (no answer, or not in this protocol), AuthenticationFailed,
    VirtualHostAccessFailed or another ServerError. After an error or a cancellation the socket is
    closed and no task is left.
    """
    stream = await dial(address)
    connection = ClientConnection(stream, address, role, settings)
    try:
        connection.start(owner)
    except OwnerEnded:  # while the socket was connecting
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)
        raise
    done = False
    try:
        await _handshake(connection, name, virtual_host, credentials, settings)
        done = True
    except (ConnectionClosed, ProtocolError, RequestTimeout) as error:
        cut = connection.error is not None and connection.error.cause == "network"
        raise ConnectionFailed(
            f"{address} did not complete the handshake of the stream protocol: "
            f"{error}; check that this is the stream port (usually 5552, with TLS 5551)",
            lost=cut,
        ) from error
    finally:
        if not done:
            connection.abort("the handshake was not completed", "handshake")
            with anyio.CancelScope(shield=True):
                await connection.lost.wait()
    return connection


async def _handshake(
    connection: ClientConnection,
    name: str,
    virtual_host: str,
    credentials: Credentials,
    settings: Settings,
) -> None:
    properties = CLIENT_PROPERTIES | {"connection_name": name}
    peer = await connection.request(lambda c: PeerProperties(c, properties), PeerPropertiesResponse)
    raise_for_code(peer.code, "exchange properties")
    offered = await connection.request(SaslHandshake, SaslHandshakeResponse)
    raise_for_code(offered.code, "negotiate authentication")
    if credentials.mechanism not in offered.mechanisms:
        raise SaslMechanismNotSupported(
            f"{connection.address} does not offer "
            f"{credentials.mechanism}, only {', '.join(offered.mechanisms)}"
        )
    await authenticate(connection, credentials)
    with anyio.move_on_after(settings.request_timeout) as waiting:
        await connection.tuned.wait()
    if waiting.cancelled_caught:
        raise RequestTimeout(f"the broker sent no Tune within {settings.request_timeout:g} s")
    opened = await connection.request(lambda c: Open(c, virtual_host), OpenResponse)
    if opened.code == Code.VIRTUAL_HOST_ACCESS_FAILURE:
        raise VirtualHostAccessFailed(
            f'virtual host "{virtual_host}" does not exist, or this user has no access to it; '
            "create it, grant access, or correct the last part of the URL"
        )
    raise_for_code(opened.code, f'open virtual host "{virtual_host}"')
    if knows_command_versions(peer.properties):
        answer = await connection.request(
            lambda c: ExchangeCommandVersions(c, CLIENT_VERSIONS), ExchangeCommandVersionsResponse
        )
        raise_for_code(answer.code, "exchange command versions")


async def authenticate(connection: ClientConnection, credentials: Credentials) -> None:
    """Authenticates a connection; on an open connection this renews its token."""
    mechanism = credentials.mechanism
    where = str(connection.address)
    data = await credentials.response()
    try:
        answer = await connection.request(
            lambda c: SaslAuthenticate(c, mechanism, data), SaslAuthenticateResponse
        )
    except ConnectionClosed as error:
        if mechanism != "EXTERNAL":
            raise
        raise AuthenticationFailed(
            f"{error} during authentication with EXTERNAL; pass tls=Tls(certificate=..., key=...) "
            "with a certificate whose name is a user of the broker (RabbitMQ 3.10 always fails)"
        ) from error
    if answer.code == CHALLENGE:
        raise SaslMechanismNotSupported(
            f"{where} sent a challenge, which {mechanism} cannot answer"
        )
    try:
        raise_for_code(answer.code, f"authenticate at {where}")
    except AuthenticationFailed as error:
        credentials.refused(data)
        raise type(error)(f"{error} ({mechanism}, {credentials})", code=error.code) from None
    except ServerError as error:
        raise AuthenticationFailed(str(error), code=error.code) from None


async def keep_authenticated(
    connection: ClientConnection, credentials: Credentials, settings: Settings
) -> None:
    """Renews credentials that expire until the connection ends. Failures are logged and retried."""
    attempt = 0
    delay = await credentials.renew_after()
    while delay is not None:
        with anyio.move_on_after(delay):
            await connection.lost.wait()
            return
        try:
            await authenticate(connection, credentials)
            delay = await credentials.renew_after()
        except FlowstreamError as error:
            attempt += 1
            delay = settings.pause(attempt)
            log.log(
                logging.WARNING if attempt == 1 else logging.DEBUG,
                "%r: renewing the credentials failed and will be retried: %s", connection, error,
            )  # fmt: skip
        else:
            if attempt:
                log.warning("%r: credentials were renewed at attempt %d", connection, attempt + 1)
            attempt = 0


def can_renew(connection: ClientConnection) -> bool:
    """Whether the server accepts SaslAuthenticate on an open connection (3.13 and later)."""
    return server_version(connection.wire.peer_properties) >= (3, 13)


def knows_command_versions(properties: Mapping[str, str]) -> bool:
    """Whether the server is 3.11 or later. Its version may end with a commit hash."""
    return server_version(properties) >= (3, 11)


def server_version(properties: Mapping[str, str]) -> tuple[int, int]:
    """The major and minor version; an unreadable version counts as newer than all others."""
    match = re.match(r"(\d+)\.(\d+)", properties.get("version", ""))
    return (int(match[1]), int(match[2])) if match else (999, 0)
