"""Commands of the connection itself: from PeerProperties to Close.

Source of order, codes and delays: rabbit_stream_reader, handle_frame_pre_auth and silent_close.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import anyio

from flowstream.broker.access import MECHANISMS, check_plain
from flowstream.broker.catalog import VIRTUAL_HOST
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

if TYPE_CHECKING:
    from flowstream.broker.session import Session

BEHAVES_LIKE = "4.3.6"
"""The version clients are told: that of the RabbitMQ whose answers this broker gives."""
_VERSION_2 = (Key.PUBLISH,)
_TOLD = (
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
VERSIONS = tuple(CommandVersion(key, 1, 2 if key in _VERSION_2 else 1) for key in _TOLD)


def peer_properties(session: Session, command: PeerProperties) -> None:
    properties = {
        "product": "flowstream embedded broker",
        "version": BEHAVES_LIKE,
        "cluster_name": "flowstream",
        "platform": f"Python {platform.python_version()}",
    }
    session.introduce()
    session.send(PeerPropertiesResponse(command.correlation_id, OK, properties))


def sasl_handshake(session: Session, command: SaslHandshake) -> None:
    session.send(SaslHandshakeResponse(command.correlation_id, OK, MECHANISMS))
    if not session.introduced:
        session.end()


async def sasl_authenticate(session: Session, command: SaslAuthenticate) -> None:
    code = _authenticate(session, command)
    if code is OK:
        session.send(SaslAuthenticateResponse(command.correlation_id, OK))
        if session.connection.state is State.TUNE:
            limits = session.node.limits
            session.send(Tune(limits.frame_max, limits.heartbeat))
        return
    if code in (Code.AUTHENTICATION_FAILURE, *_CHANGES):
        await anyio.sleep(session.node.limits.refusal_delay)
    session.send(SaslAuthenticateResponse(command.correlation_id, code))
    session.end()


_CHANGES = (Code.SASL_CANNOT_CHANGE_MECHANISM, Code.SASL_CANNOT_CHANGE_USERNAME)


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


def tune(session: Session, command: Tune | TuneResponse) -> None:
    """Heartbeats run from here on, at the interval the client asked for."""
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
    """Whatever comes after it is ignored."""
    session.send(Response(Key.CLOSE, command.correlation_id, OK))
    session.end()


def closed(session: Session, _: Response) -> None:
    """The client answered our Close."""
    session.end()


def heartbeat(_: Session, __: Heartbeat) -> None:
    """Any byte counts as life; there is nothing else to do."""
