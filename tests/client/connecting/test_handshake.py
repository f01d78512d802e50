"""The handshake in order, refused at each step, or stopped at each step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.client.connecting.connection import ClientConnection
from flowstream.client.connecting.credentials import ExternalCredentials, PlainCredentials
from flowstream.client.connecting.handshake import (
    CLIENT_PROPERTIES,
    open_connection,
    server_version,
)
from flowstream.client.connecting.settings import Settings
from flowstream.client.connecting.tasks import TaskOwner
from flowstream.errors import (
    AccessRefused,
    AuthenticationFailed,
    ConnectionFailed,
    EnvironmentClosed,
    LoopbackOnly,
    SaslError,
    SaslMechanismNotSupported,
    VirtualHostAccessFailed,
)
from flowstream.protocol import (
    CLIENT_VERSIONS,
    Address,
    Close,
    Code,
    ExchangeCommandVersions,
    Key,
    Open,
    OpenResponse,
    PeerProperties,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    Tune,
)
from tests.client.conftest import SECRET
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


@asynccontextmanager
async def opened(cluster: Cluster, **options: Any) -> AsyncIterator[ClientConnection]:
    credentials = options.pop("credentials", PlainCredentials("guest", SECRET))
    async with TaskOwner() as owner:
        yield await open_connection(
            cluster.dial,
            Address("node0", 5552),
            "testing",
            name="a name",
            virtual_host="/v",
            credentials=credentials,
            settings=Settings(**options),
            owner=owner,
        )


async def test_an_environment_that_is_closed_meanwhile_is_named(cluster: Cluster) -> None:
    """A reconnect may be under way when the environment is closed."""
    async with TaskOwner() as owner:
        pass
    streams: list[Any] = []

    async def dial(address: Address) -> Any:
        streams.append(await cluster.dial(address))
        return streams[0]

    with pytest.raises(EnvironmentClosed, match="has ended"):
        await open_connection(
            dial, Address("node0", 5552), "testing", name="a name", virtual_host="/v",
            credentials=PlainCredentials("guest", SECRET), settings=Settings(), owner=owner,
        )  # fmt: skip
    assert streams[0].closed


async def test_the_handshake_in_order(cluster: Cluster) -> None:
    async with opened(cluster, heartbeat=20, frame_max=50_000) as connection:
        received = cluster.node.sessions[0].received
        assert [type(command) for command in received] == [
            PeerProperties,
            SaslHandshake,
            SaslAuthenticate,
            Tune,
            Open,
            ExchangeCommandVersions,
        ]
        assert received[0].properties == CLIENT_PROPERTIES | {"connection_name": "a name"}
        assert received[2].data == b"\0guest\0" + SECRET.encode()
        assert received[3] == Tune(50_000, 20)
        assert received[4].virtual_host == "/v"
        assert received[5].commands == CLIENT_VERSIONS
        assert (connection.frame_max, connection.wire.heartbeat) == (50_000, 20)
        assert connection.supports(Key.PUBLISH, 2)
        assert not connection.supports(Key.RESOLVE_OFFSET_SPEC)
        assert connection.wire.advertised == Address("node0", 5552)


async def test_servers_before_3_11_are_not_asked_for_versions() -> None:
    cluster = Cluster(version="3.10.8")
    async with opened(cluster) as connection:
        assert cluster.node.received(ExchangeCommandVersions) == []
        assert connection.supports(Key.PARTITIONS)
        assert not connection.supports(Key.STREAM_STATS)


def test_versions_of_servers() -> None:
    """They can carry a commit hash."""
    for text, expected in [
        ("3.10.8", (3, 10)),
        ("4.1.0-alpha.3+11.gdeadbee", (4, 1)),
        ("3.13.7.13", (3, 13)),
        ("", (999, 0)),
        ("main", (999, 0)),
    ]:
        assert server_version({"version": text}) == expected


def answer_login(code: int) -> Any:
    def script(session: Session, command: SaslAuthenticate) -> bool:
        session.send(SaslAuthenticateResponse(command.correlation_id, code, b"more"))
        return True

    return script


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.AUTHENTICATION_FAILURE, AuthenticationFailed),
        (Code.SASL_ERROR, SaslError),
        (Code.SASL_AUTHENTICATION_FAILURE_LOOPBACK, LoopbackOnly),
        (Code.SASL_CHALLENGE, SaslMechanismNotSupported),
        (Code.ACCESS_REFUSED, AuthenticationFailed),
        (77, AuthenticationFailed),
    ],
)
async def test_refused_logins(cluster: Cluster, code: int, error: type[Exception]) -> None:
    cluster.node.scripts[SaslAuthenticate] = answer_login(code)
    with pytest.raises(error) as caught:
        async with opened(cluster):
            pass
    assert type(caught.value) is error
    assert "node0:5552" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert cluster.node.live() == []


async def test_a_mechanism_that_is_not_offered(cluster: Cluster) -> None:
    def script(session: Session, command: SaslHandshake) -> bool:
        session.send(SaslHandshakeResponse(command.correlation_id, Code.OK, ("PLAIN", "AMQPLAIN")))
        return True

    cluster.node.scripts[SaslHandshake] = script
    with pytest.raises(SaslMechanismNotSupported, match="EXTERNAL, only PLAIN, AMQPLAIN"):
        async with opened(cluster, credentials=ExternalCredentials()):
            pass


async def test_external_sends_the_mechanism_and_nothing_else(cluster: Cluster) -> None:
    async with opened(cluster, credentials=ExternalCredentials()):
        [command] = cluster.node.received(SaslAuthenticate)
        assert (command.mechanism, command.data) == ("EXTERNAL", b"")


@pytest.mark.parametrize(
    ("code", "error"), [(12, VirtualHostAccessFailed), (Code.ACCESS_REFUSED, AccessRefused)]
)
async def test_a_virtual_host_that_cannot_be_opened(
    cluster: Cluster, code: int, error: type[Exception]
) -> None:
    def script(session: Session, command: Open) -> bool:
        session.send(OpenResponse(command.correlation_id, code, {}))
        return True

    cluster.node.scripts[Open] = script
    with pytest.raises(error, match='virtual host "/v"'):
        async with opened(cluster):
            pass
    assert cluster.node.live() == []


@pytest.mark.parametrize("step", [PeerProperties, SaslHandshake, SaslAuthenticate, Tune, Open])
@pytest.mark.parametrize("how", ["silence", "end", "garbage", "goodbye"])
async def test_a_handshake_that_stops_anywhere_fails_in_time(
    cluster: Cluster, step: type, how: str
) -> None:
    def script(session: Session, command: Any) -> bool:
        if how == "silence":
            session.mute = True
        elif how == "end":
            session.drop()
        elif how == "garbage":
            session.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            session.send(Close(1, Code.INTERNAL_ERROR, "going down"))
        return True

    cluster.node.scripts[step] = script
    start = anyio.current_time()
    with pytest.raises(ConnectionFailed, match=r"node0:5552 .* handshake") as caught:
        async with opened(cluster):
            pass
    assert anyio.current_time() - start <= 10
    assert "5552, with TLS 5551" in str(caught.value)
    if how == "goodbye":
        assert "going down (code 15)" in str(caught.value)
    if how == "garbage":
        assert "it speaks HTTP, not the stream protocol" in str(caught.value)
    assert cluster.node.live() == []
