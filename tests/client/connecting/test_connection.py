"""One connection: the handshake, requests, heartbeats, goodbyes, garbage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.client.connecting.connection import ClientConnection
from flowstream.client.connecting.credentials import PlainCredentials
from flowstream.client.connecting.handshake import (
    open_connection,
)
from flowstream.client.connecting.settings import Settings
from flowstream.client.connecting.tasks import TaskOwner
from flowstream.errors import (
    ConnectionClosed,
    ConnectionFailed,
    ProtocolError,
    RequestTimeout,
)
from flowstream.protocol import (
    Address,
    Close,
    Code,
    ConsumerUpdate,
    ConsumerUpdateResponse,
    Heartbeat,
    Key,
    Metadata,
    MetadataResponse,
    OffsetSpec,
    Response,
    SaslAuthenticate,
    SaslAuthenticateResponse,
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


async def test_what_arrives_between_close_and_its_answer_is_no_fault(cluster: Cluster) -> None:
    """A broker may give a partition to a consumer whose connection has just sent Close."""
    closing, received = anyio.Event(), []

    def update_first(session: Session, command: Any) -> bool:
        session.send(ConsumerUpdate(1, 200, active=True))
        received.append((session, command))
        closing.set()
        return True

    async with opened(cluster) as connection, anyio.create_task_group() as group:
        cluster.node.scripts[Close] = update_first
        start = anyio.current_time()
        group.start_soon(connection.close)
        await closing.wait()
        with pytest.raises(ConnectionClosed) as raised:
            await connection.request(lambda c: Metadata(c, ("s",)), MetadataResponse)
        assert str(raised.value) == "the connection to node0:5552 is being closed"
        [(session, command)] = received
        session.send(Response(Key.CLOSE, command.correlation_id, Code.OK))
        await connection.lost.wait()
        assert anyio.current_time() - start < 1
        assert "closed on request" in str(connection.error)
        assert cluster.node.received(ConsumerUpdateResponse) == []


async def test_an_end_after_close_is_no_loss(cluster: Cluster) -> None:
    """Whether the answer or the end is seen first is chance. A lost node would be avoided."""

    def end(session: Session, command: Any) -> bool:
        session.drop()
        return True

    async with opened(cluster) as connection:
        cluster.node.scripts[Close] = end
        await connection.close()
        assert connection.error is not None
        assert connection.error.cause == "request"


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


async def test_a_goodbye_in_front_of_a_damaged_frame_needs_no_answer(cluster: Cluster) -> None:
    """The damage ends the protocol: the answer to Close can no longer be sent."""
    damaged_deliver = b"\0\0\0\x05\0\x08\0\x01\0"
    async with opened(cluster) as connection:
        session = cluster.node.sessions[0]
        session.raw(session.wire.send(Close(1, 15, "disk")) + damaged_deliver)
        await connection.lost.wait()
        assert "disk (code 15)" in str(connection.error)


async def test_what_cannot_be_answered_before_damage_does_not_hide_it(cluster: Cluster) -> None:
    damaged_open = b"\0\0\0\x05\x80\x15\0\x01\0"

    def damage(session: Session, command: Any) -> bool:
        answered = session.wire.send(SaslAuthenticateResponse(command.correlation_id, Code.OK))
        session.raw(answered + session.wire.send(Tune(1 << 20, 60)) + damaged_open)
        return True

    cluster.node.scripts[SaslAuthenticate] = damage
    start = anyio.current_time()
    with pytest.raises(ConnectionFailed, match="violated the protocol"):
        async with opened(cluster):
            pass
    assert anyio.current_time() - start < 1


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
