"""Handlers of the connection itself, from PeerProperties to Close, with SASL PLAIN (RFC 4616).

Source of order, codes and delays: rabbit_stream_reader, handle_frame_pre_auth and silent_close.
"""

from __future__ import annotations

import hmac
import platform
from collections.abc import Mapping

import anyio

from flowstream.broker.catalog import VIRTUAL_HOST
from flowstream.broker.session import Session
from flowstream.protocol import (
    OK,
    Close,
    Code,
    CommandVersion,
    ExchangeCommandVersions,
    ExchangeCommandVersionsResponse,
    Heartbeat,
    Key,
    Open,
    OpenResponse,
    PeerProperties,
    PeerPropertiesResponse,
    Response,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    State,
    Tune,
    TuneResponse,
)

PRODUCT = "flowstream embedded broker"
"""The product in the server's properties."""
BEHAVES_LIKE = "4.3.6"
"""The version in the server's properties: the RabbitMQ whose answers this broker gives."""
MECHANISMS = ("PLAIN",)
LOOPBACK_ONLY = "guest"
"""The user who may connect from this machine only, as in RabbitMQ."""
_VERSION_2 = (Key.PUBLISH,)
_ANNOUNCED = (
    Key.DECLARE_PUBLISHER,
    Key.PUBLISH,
    Key.QUERY_PUBLISHER_SEQUENCE,
    Key.DELETE_PUBLISHER,
    Key.SUBSCRIBE,
    Key.CREDIT,
    Key.STORE_OFFSET,
    Key.QUERY_OFFSET,
    Key.UNSUBSCRIBE,
    Key.CREATE_STREAM,
    Key.DELETE_STREAM,
    Key.METADATA,
    Key.CLOSE,
    Key.HEARTBEAT,
    Key.ROUTE,
    Key.PARTITIONS,
    Key.STREAM_STATS,
    Key.CREATE_SUPER_STREAM,
    Key.DELETE_SUPER_STREAM,
    Key.RESOLVE_OFFSET_SPEC,
)
_DELAYED = (
    Code.AUTHENTICATION_FAILURE,
    Code.SASL_CANNOT_CHANGE_MECHANISM,
    Code.SASL_CANNOT_CHANGE_USERNAME,
)
VERSIONS = tuple(CommandVersion(key, 1, 2 if key in _VERSION_2 else 1) for key in _ANNOUNCED)


def peer_properties(session: Session, command: PeerProperties) -> None:
    properties = {
        "product": PRODUCT,
        "version": BEHAVES_LIKE,
        "cluster_name": "flowstream",
        "platform": f"Python {platform.python_version()}",
    }
    session.identify()
    session.send(PeerPropertiesResponse(command.correlation_id, OK, properties))


def sasl_handshake(session: Session, command: SaslHandshake) -> None:
    """A client that has sent no properties gets its answer, and then the connection ends."""
    session.send(SaslHandshakeResponse(command.correlation_id, OK, MECHANISMS))
    if not session.identified:
        session.end()


async def sasl_authenticate(session: Session, command: SaslAuthenticate) -> None:
    """Log the client in, or, on a running connection, check its new credentials.

    The answer to wrong credentials is held back, so that passwords cannot be guessed quickly.
    """
    code = _authenticate(session, command)
    if code is OK:
        session.send(SaslAuthenticateResponse(command.correlation_id, OK))
        if session.connection.state is State.TUNE:
            limits = session.node.limits
            session.send(Tune(limits.frame_max, limits.heartbeat))
        return
    if code in _DELAYED:
        await anyio.sleep(session.node.limits.refusal_delay)
    session.send(SaslAuthenticateResponse(command.correlation_id, code))
    session.end()


def _authenticate(session: Session, command: SaslAuthenticate) -> Code:
    again = session.connection.state is State.RUNNING
    if command.mechanism not in MECHANISMS:
        return Code.SASL_CANNOT_CHANGE_MECHANISM if again else Code.SASL_MECHANISM_NOT_SUPPORTED
    code, user = check_plain(command.data, session.node.users, session.peer_host)
    if again and code is OK and user != session.user:
        return Code.SASL_CANNOT_CHANGE_USERNAME
    if code is OK:
        session.user = user
    return code


def check_plain(
    data: bytes | None, users: Mapping[str, str], peer_host: str | None
) -> tuple[Code, str]:
    """The response code and the user name ("" unless the code is OK) for a PLAIN response.

    As in RabbitMQ an authorization identity is an error, and "guest" may connect over loopback
    only.
    """
    parts = (data or b"").split(b"\0")
    if len(parts) != 3 or parts[0]:
        return Code.SASL_ERROR, ""
    name, password = (part.decode("utf-8", "surrogateescape") for part in parts[1:])
    expected = users.get(name)
    given = password.encode("utf-8", "surrogateescape")
    if expected is None or not hmac.compare_digest(expected.encode(), given):
        return Code.AUTHENTICATION_FAILURE, ""
    if name == LOOPBACK_ONLY and not is_loopback(peer_host):
        return Code.SASL_AUTHENTICATION_FAILURE_LOOPBACK, ""
    return OK, name


def is_loopback(host: str | None) -> bool:
    return host is None or host == "::1" or host.startswith(("127.", "::ffff:127."))


def tune(session: Session, command: Tune | TuneResponse) -> None:
    """Heartbeats start here, at the interval that the client chose."""
    session.heartbeat = command.heartbeat


async def open_host(session: Session, command: Open) -> None:
    if command.virtual_host != VIRTUAL_HOST:
        await anyio.sleep(session.node.limits.refusal_delay)
        code = Code.VIRTUAL_HOST_ACCESS_FAILURE
        session.send(OpenResponse(command.correlation_id, code, {}))
        session.end()
        return
    host, port = session.advertised
    properties = {"advertised_host": host, "advertised_port": str(port)}
    session.send(OpenResponse(command.correlation_id, OK, properties))


def exchange_versions(session: Session, command: ExchangeCommandVersions) -> None:
    session.deliver_2 = session.connection.supports(Key.DELIVER, 2)
    session.send(ExchangeCommandVersionsResponse(command.correlation_id, OK, VERSIONS))


def close(session: Session, command: Close) -> None:
    """The session ignores whatever the client sends after its Close."""
    session.send(Response(Key.CLOSE, command.correlation_id, OK))
    session.end()


def closed(session: Session, _: Response) -> None:
    """The client answered our Close."""
    session.end()


def heartbeat(_: Session, __: Heartbeat) -> None:
    """Nothing to do: every received byte counts as a heartbeat (`Session.tick`)."""
