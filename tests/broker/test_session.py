"""One connection in virtual time: deadlines, heartbeats, back-pressure; no socket, no thread."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.broker.handlers import HANDLERS
from flowstream.broker.node import Limits, Node
from flowstream.broker.session import Session
from flowstream.protocol import (
    Chunk,
    Close,
    ConsumerUpdate,
    CreateStream,
    DeclarePublisher,
    Deliver,
    Heartbeat,
    Metadata,
    MetadataResponse,
    OffsetSpec,
    PeerProperties,
    PeerPropertiesResponse,
    PublishConfirm,
    QueryOffset,
    Response,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    StoreOffset,
    Subscribe,
    Tune,
    encode_publish,
)
from flowstream.testing import virtual_time
from tests.broker.connections import a_client, a_node, a_stranger

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Sleeps end at once and in order: an hour passes when nothing else can happen."""
    return virtual_time("trio")


def session_of(node: Node) -> Session:
    (session,) = node.connections
    assert isinstance(session, Session)
    return session


# --- deadlines --------------------------------------------------------------------------------


async def test_every_step_of_the_handshake_has_ten_seconds() -> None:
    steps: list[Any] = [
        (PeerProperties(1, {}), PeerPropertiesResponse),
        (SaslHandshake(2), SaslHandshakeResponse),
        (SaslAuthenticate(3, "PLAIN", b"\0guest\0guest"), SaslAuthenticateResponse),
    ]
    async with a_node() as node:
        for count in range(len(steps) + 1):
            async with a_stranger(node) as raw:
                began = anyio.current_time()
                for command, answer in steps[:count]:
                    await anyio.sleep(7)
                    await raw.call(command, answer)
                if count == len(steps):
                    await raw.expect(Tune)
                assert await raw.next() is None
                assert 10 <= anyio.current_time() - began - 7 * count <= 11


async def test_bytes_that_never_make_a_frame_do_not_extend_the_handshake() -> None:
    async with a_node() as node, a_stranger(node) as raw:
        began = anyio.current_time()
        await raw.send(b"\0\0\x10\0")
        with anyio.move_on_after(60):
            while True:
                await anyio.sleep(1)
                try:
                    await raw.send(b"x")
                except anyio.BrokenResourceError:
                    break
        assert 10 <= anyio.current_time() - began <= 12


async def test_a_client_that_does_not_answer_close_is_disconnected_after_ten_seconds() -> None:
    async with a_node() as node, a_client(node) as raw:
        began = anyio.current_time()
        await raw.send(b"\0\0\0\4\1\1\0\1")
        assert (await raw.expect(Close)).code == 13
        assert await raw.next() is None
        assert anyio.current_time() - began == 10


async def test_close_ends_at_its_answer() -> None:
    async with a_node() as node, a_client(node) as raw:
        began = anyio.current_time()
        await raw.send(b"\0\0\0\4\1\1\0\1")
        await raw.expect(Close)
        await raw.send(PeerProperties(9, {}), b"\0\0\0\x0a\x80\x16\0\1\0\0\0\1\0\1")
        assert await raw.next() is None
        assert anyio.current_time() == began


async def test_a_consumer_update_has_sixty_seconds() -> None:
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        properties = {"single-active-consumer": "true", "name": "n"}
        await raw.ok(Subscribe(8, 0, "s", OffsetSpec.first(), 1, properties))
        began = anyio.current_time()
        await raw.expect(ConsumerUpdate)
        assert await raw.next() is None
        assert 60 <= anyio.current_time() - began <= 61
        assert node.coordinator.groups == {}


# --- heartbeats -------------------------------------------------------------------------------


async def test_a_silent_client_is_disconnected_after_two_heartbeats() -> None:
    async with a_node() as node, a_client(node, heartbeat=5) as raw:
        began = anyio.current_time()
        assert await raw.next() is None
        assert 10 <= anyio.current_time() - began <= 11
        assert raw.heartbeats >= 3


async def test_a_client_that_sends_heartbeats_stays_connected() -> None:
    async with a_node() as node, a_client(node, heartbeat=5) as raw:
        for _ in range(10):
            await anyio.sleep(5)
            await raw.send(Heartbeat())
        await raw.ok(CreateStream(7, "s", {}))


@pytest.mark.medium
async def test_without_heartbeats_a_silent_client_stays_connected() -> None:
    async with a_node() as node, a_client(node, heartbeat=0) as raw:
        await anyio.sleep(3600)
        await raw.ok(CreateStream(7, "s", {}))
        assert raw.heartbeats == 0


async def test_a_client_that_stops_reading_during_close_is_disconnected() -> None:
    async with a_node() as node, a_client(node, unread=1) as raw:
        for correlation_id in range(50):
            await raw.send(QueryOffset(correlation_id, "r" * 100, "s"))
        await raw.send(b"\0\0\0\4\1\1\0\1")
        began = anyio.current_time()
        while node.connections:
            await anyio.sleep(1)
        assert anyio.current_time() - began <= 22


# --- bounds -----------------------------------------------------------------------------------


async def test_reading_stops_at_too_many_unconfirmed_and_goes_on() -> None:
    limits = Limits(max_unconfirmed=100, resume_room=25)
    async with a_node(limits) as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        session = session_of(node)
        most = 0
        confirmed: list[int] = []
        for first in range(0, 1000, 50):
            await raw.send(encode_publish(0, first, [b"x"] * 50))
            most = max(most, session.unconfirmed)
        while len(confirmed) < 1000:
            confirmed += (await raw.expect(PublishConfirm)).publishing_ids
            most = max(most, session.unconfirmed)
        assert sorted(confirmed) == list(range(1000))
        assert most <= 150
        assert session.unconfirmed == 0


async def test_reading_stops_while_answers_are_not_read() -> None:
    limits = Limits(max_unsent=2000)
    async with a_node(limits) as node, a_client(node, unread=1) as raw:
        session = session_of(node)
        with anyio.move_on_after(30):
            for correlation_id in range(10_000):
                await raw.send(QueryOffset(correlation_id, "r", "no such stream"))
        assert session.unsent < 3000
        answered = 0
        with anyio.move_on_after(5):
            while await raw.next() is not None:
                answered += 1
        assert answered > 80


@pytest.mark.medium
async def test_a_slow_consumer_holds_one_piece() -> None:
    async with a_node() as node, a_client(node, unread=1) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        for first in range(50):
            await raw.send(encode_publish(0, first, [b"x" * 100_000] * 4))
            await raw.expect(PublishConfirm)
        await raw.ok(Subscribe(9, 0, "s", OffsetSpec.first(), 1000, {}))
        await anyio.sleep(60)
        assert node.messages_out <= 24, "a piece that is sent and one that waits, of 12 each"
        delivered = await raw.expect(Deliver)
        assert Chunk(delivered.chunk).offset == 0


@pytest.mark.medium
async def test_existing_chunks_come_before_later_answers() -> None:
    """As in RabbitMQ: by the answer to a later command a client knows that there is no more."""
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        for first in range(30):
            await raw.send(encode_publish(0, first, [b"x" * 200_000] * 4))
            await raw.expect(PublishConfirm)
        await raw.send(
            Subscribe(9, 0, "s", OffsetSpec.first(), 1000, {}),
            Subscribe(10, 1, "s", OffsetSpec.offset(60), 5, {}),
            Metadata(11, ("s",)),
        )
        before: list[Any] = []
        while not isinstance(command := await raw.next(), MetadataResponse):
            before.append(command)
        probed = [it for it in before if isinstance(it, Deliver) and it.subscription_id == 1]
        assert [Chunk(it.chunk).offset for it in probed] == [60, 64, 68, 72, 76]


# --- an ending session ------------------------------------------------------------------------


async def test_what_follows_close_is_ignored() -> None:
    async with a_node() as node, a_client(node) as raw:
        await raw.send(Close(7, 1, "bye"), CreateStream(8, "s", {}))
        assert (await raw.expect(Response)).code == 1
        assert await raw.next() is None
        assert node.catalog.streams == {}


async def test_a_request_is_done_even_if_the_client_does_not_wait() -> None:
    async with a_node() as node:
        async with a_client(node) as keeper, a_client(node) as raw:
            await raw.ok(CreateStream(7, "s", {}))
            await keeper.ok(DeclarePublisher(8, 0, None, "s"))
            await raw.send(StoreOffset("r", "s", 4))
        async with a_client(node) as raw:
            answer: Any = await raw.call(QueryOffset(7, "r", "s"), object)
            assert (answer.code, answer.offset) == (1, 4)
        await anyio.wait_all_tasks_blocked()
        assert not node.connections
        assert not node.catalog.streams["s"].on_growth


async def test_an_error_inside_costs_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake in the broker")

    handlers = {**HANDLERS, StoreOffset: broken}
    async with a_node() as node, a_client(node) as other:
        async with a_client(node, handlers=handlers) as raw:
            await raw.send(StoreOffset("r", "s", 1))
            assert await raw.next() is None
        assert "a mistake in the broker" in caplog.text
        await other.ok(CreateStream(7, "s", {}))


async def test_chunks_do_not_follow_a_refusal() -> None:
    async with a_node() as node, a_client(node) as raw, a_client(node) as other:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(Subscribe(8, 0, "s", OffsetSpec.first(), 10, {}))
        await raw.send(b"\0\0\0\4\1\1\0\1")
        await raw.expect(Close)
        await other.ok(DeclarePublisher(8, 0, None, "s"))
        await other.send(encode_publish(0, 0, [b"x"]))
        await other.expect(PublishConfirm)
        assert await raw.next() is None
