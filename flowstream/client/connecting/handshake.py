"""From a byte stream to a connection that can be used: the handshake, step by step.

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
from .tasks import TaskOwner
from .transport import Dial


def this_process() -> str:
    """The name that connections tell of their process: `host:pid`."""
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

    Raises ConnectionFailed (nobody answers, or not in this protocol), AuthenticationFailed,
    VirtualHostAccessFailed or another ServerError. Nothing is left behind then, or on cancellation.
    """
    stream = await dial(address)
    connection = ClientConnection(stream, address, role, settings)
    connection.start(owner)
    done = False
    try:
        await _handshake(connection, name, virtual_host, credentials, settings)
        done = True
    except (ConnectionClosed, ProtocolError, RequestTimeout) as error:
        raise ConnectionFailed(
            f"{address.host}:{address.port} does not complete a stream handshake: {error}; is it "
            "the stream port (usually 5552, with TLS 5551)?"
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
            f"{connection.address.host}:{connection.address.port} does not offer "
            f"{credentials.mechanism}, only {', '.join(offered.mechanisms)}"
        )
    await authenticate(connection, credentials)
    with anyio.move_on_after(settings.request_timeout) as waiting:
        await connection.tuned.wait()
    if waiting.cancelled_caught:
        raise RequestTimeout(f"no Tune came in {settings.request_timeout:g} s")
    opened = await connection.request(lambda c: Open(c, virtual_host), OpenResponse)
    if opened.code == Code.VIRTUAL_HOST_ACCESS_FAILURE:
        raise VirtualHostAccessFailed(
            f'virtual host "{virtual_host}" does not exist, or this user may not use it; '
            "create it, or correct the last part of the URL"
        )
    raise_for_code(opened.code, f'open virtual host "{virtual_host}"')
    if knows_command_versions(peer.properties):
        answer = await connection.request(
            lambda c: ExchangeCommandVersions(c, CLIENT_VERSIONS), ExchangeCommandVersionsResponse
        )
        raise_for_code(answer.code, "exchange command versions")


async def authenticate(connection: ClientConnection, credentials: Credentials) -> None:
    """Proves who this is; on a live connection again, to renew a token."""
    mechanism = credentials.mechanism
    where = f"{connection.address.host}:{connection.address.port}"
    data = await credentials.response()
    try:
        answer = await connection.request(
            lambda c: SaslAuthenticate(c, mechanism, data), SaslAuthenticateResponse
        )
    except ConnectionClosed as error:
        if mechanism != "EXTERNAL":
            raise
        raise AuthenticationFailed(
            f"{error} when asked to authenticate with EXTERNAL; give Tls(certificate=, key=) whose "
            "name is a user of the broker (RabbitMQ 3.10 fails at this always)"
        ) from error
    if answer.code == CHALLENGE:
        raise SaslMechanismNotSupported(f"{where} asks for more than {mechanism} can answer")
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
    """Renews what expires until the connection ends; failures are tried again, and logged."""
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
            delay = settings.backoff.delay(attempt)
            log.log(
                logging.WARNING if attempt == 1 else logging.DEBUG,
                "%r: credentials were not renewed, and are tried again: %s", connection, error,
            )  # fmt: skip
        else:
            if attempt:
                log.warning("%r: credentials are renewed, at attempt %d", connection, attempt + 1)
            attempt = 0


def can_renew(connection: ClientConnection) -> bool:
    """Whether the server takes SaslAuthenticate again on a live connection (3.13 and later)."""
    return server_version(connection.wire.peer_properties) >= (3, 13)


def knows_command_versions(properties: Mapping[str, str]) -> bool:
    """Whether the server is 3.11 or later, by its version (which can carry a commit hash)."""
    return server_version(properties) >= (3, 11)


def server_version(properties: Mapping[str, str]) -> tuple[int, int]:
    """Major and minor; a version that cannot be read counts as new."""
    match = re.match(r"(\d+)\.(\d+)", properties.get("version", ""))
    return (int(match[1]), int(match[2])) if match else (999, 0)
