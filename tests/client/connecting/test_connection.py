"""One connection: the handshake, requests, heartbeats, goodbyes, garbage."""

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
    ConnectionClosed,
    ConnectionFailed,
    LoopbackOnly,
    ProtocolError,
    RequestTimeout,
    SaslError,
    SaslMechanismNotSupported,
    VirtualHostAccessFailed,
)
from flowstream.protocol import (
    CLIENT_VERSIONS,
    Address,
    Close,
    Code,
    ConsumerUpdate,
    ConsumerUpdateResponse,
    ExchangeCommandVersions,
    Heartbeat,
    Key,
    Metadata,
    MetadataResponse,
    OffsetSpec,
    Open,
    OpenResponse,
    PeerProperties,
    Response,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    StreamStats,
    StreamStatsResponse,
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


async def test_an_unanswered_request_times_out_and_its_late_answer_is_dropped(
    cluster: Cluster,
) -> None:
    async with opened(cluster) as connection:
        cluster.node.scripts[Metadata] = lambda session, command: True
        start = anyio.current_time()
        with pytest.raises(RequestTimeout, match="did not answer Metadata within 10 s"):
            await connection.request(lambda c: Metadata(c, ("s",)), MetadataResponse)
        assert anyio.current_time() - start == 10
        [late] = cluster.node.received(Metadata)
        session = cluster.node.sessions[0]
        session.send(MetadataResponse(late.correlation_id, {}, ()))
        del cluster.node.scripts[Metadata]
        answer = await connection.request(lambda c: Metadata(c, ("s",)), MetadataResponse)
        assert answer.streams[0].name == "s"
        assert connection.statistics()["requests"] == 0


async def test_an_answer_of_another_type_is_an_error(cluster: Cluster) -> None:
    def script(session: Session, command: Metadata) -> bool:
        session.send(StreamStatsResponse(command.correlation_id, Code.OK, {}))
        return True

    cluster.node.scripts[Metadata] = script
    async with opened(cluster) as connection:
        with pytest.raises(ProtocolError, match="Metadata with StreamStatsResponse"):
            await connection.request(lambda c: Metadata(c, ("s",)), MetadataResponse)


async def test_requests_of_a_lost_connection_end_at_once(cluster: Cluster) -> None:
    cluster.node.scripts[StreamStats] = lambda session, command: True
    async with opened(cluster) as connection, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(ConnectionClosed, match="closed the connection"):
                await connection.request(lambda c: StreamStats(c, "s"), StreamStatsResponse)

        for _ in range(5):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
        cluster.node.sessions[0].drop()
        await connection.lost.wait()
        assert anyio.current_time() == start
        with pytest.raises(ConnectionClosed):
            connection.send(Heartbeat())


async def test_heartbeats_are_sent_while_nothing_else_is(cluster: Cluster) -> None:
    cluster.node.heartbeat = 10
    async with opened(cluster) as connection:
        session = cluster.node.sessions[0]
        for _ in range(10):
            await anyio.sleep(10)
            session.send(Heartbeat())
        assert connection.usable
        beats = len(cluster.node.received(Heartbeat))
        assert 10 <= beats <= 21


async def test_any_received_byte_counts_as_life(cluster: Cluster) -> None:
    cluster.node.heartbeat = 10
    async with opened(cluster) as connection:
        for _ in range(20):
            await anyio.sleep(15)
            await connection.request(lambda c: Metadata(c, ("s",)), MetadataResponse)
        assert connection.usable


async def test_a_silent_server_is_left_after_two_heartbeats(cluster: Cluster) -> None:
    cluster.node.heartbeat = 10
    async with opened(cluster) as connection:
        start = anyio.current_time()
        cluster.node.sessions[0].mute = True
        await connection.lost.wait()
        assert 20 < anyio.current_time() - start <= 30
        assert "missed heartbeats" in str(connection.error)
    assert cluster.node.live() == []


async def test_no_heartbeat_at_all_if_both_want_none(cluster: Cluster) -> None:
    cluster.node.heartbeat = 0
    async with opened(cluster, heartbeat=0) as connection:
        await anyio.sleep(10_000)
        assert connection.usable
        assert cluster.node.received(Heartbeat) == []


async def test_goodbye_is_said_and_waited_for(cluster: Cluster) -> None:
    async with opened(cluster) as connection:
        await connection.close()
        [goodbye] = cluster.node.received(Close)
        assert (goodbye.code, goodbye.reason) == (1, "closed by the client")
        assert not connection.usable
        await connection.close()


async def test_goodbye_takes_no_longer_than_the_close_timeout(cluster: Cluster) -> None:
    async with opened(cluster, close_timeout=3.0) as connection:
        session = cluster.node.sessions[0]
        session.stall()
        start = anyio.current_time()
        await connection.close()
        assert anyio.current_time() - start == 3
    assert cluster.node.live() == []


async def test_garbage_ends_the_connection(cluster: Cluster) -> None:
    async with opened(cluster) as connection:
        cluster.node.sessions[0].raw(b"\0\0\0\x04\x7f\x7f\0\x01")
        await connection.lost.wait()
        assert "violated the protocol" in str(connection.error)


async def test_a_goodbye_in_front_of_garbage_is_the_reason(cluster: Cluster) -> None:
    async with opened(cluster) as connection:
        session = cluster.node.sessions[0]
        session.raw(session.wire.send(Close(1, 15, "disk")) + b"\0\0\0\x04\x7f\x7f\0\x01")
        await connection.lost.wait()
        assert "disk (code 15)" in str(connection.error)


async def test_pitfall_10_a_consumer_update_of_nobody_is_answered(cluster: Cluster) -> None:
    """Pitfall 10: always answer ConsumerUpdate. Pitfall 17: the server's ids are its own."""
    async with opened(cluster):
        cluster.node.sessions[0].send(ConsumerUpdate(1, 200, active=True))
        await anyio.wait_all_tasks_blocked()
        expected = ConsumerUpdateResponse(1, Code.OK, OffsetSpec.none())
        assert expected in cluster.node.sessions[0].received


@pytest.mark.slow
async def test_commands_wait_for_a_socket_that_takes_them(cluster: Cluster) -> None:
    async with opened(cluster) as connection:
        session = cluster.node.sessions[0]
        session.stall()
        for _ in range(20_000):
            connection.send(Metadata(0, ("x" * 100,)))
        await anyio.sleep(2)
        assert connection.blocked
        with anyio.move_on_after(5) as waiting:
            await connection.drained()
        assert waiting.cancelled_caught
        session.resume()
        await connection.drained()
        assert connection.statistics()["bytes_to_write"] <= 1 << 20
        await anyio.wait_all_tasks_blocked()
        assert not connection.blocked


async def test_the_repr_tells_role_address_and_state(cluster: Cluster) -> None:
    async with opened(cluster) as connection:
        assert repr(connection) == "<connection testing node0:5552 running>"
        await connection.close()
        assert repr(connection) == "<connection testing node0:5552 closed>"


async def test_close_answers_are_the_servers(cluster: Cluster) -> None:
    async with opened(cluster) as connection:
        cluster.node.sessions[0].send(Close(77, 1, "bye"))
        await connection.lost.wait()
        assert Response(Key.CLOSE, 77, Code.OK) in cluster.node.sessions[0].received
    assert cluster.node.live() == []
