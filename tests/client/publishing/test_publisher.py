"""Publishing: windows, confirms, failures, and what happens to it all when the connection ends."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.errors import (
    ConfigurationError,
    ConnectionClosed,
    PublishFailed,
)
from flowstream.protocol import (
    Code,
    DeclarePublisher,
    Publish,
    PublishError,
)
from flowstream.telemetry import Confirmed, Published, StateChanged
from tests.client.bodies import numbers, stored
from tests.client.conftest import Connect, Recorder
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_everything_sent_is_stored_in_order_and_confirmed(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for body in numbers(1500):
            await publisher.send(body)
        await publisher.send_many(numbers(1500, 1500))
        await publisher.publish(b"3000")
        await publisher.publish_many(numbers(2, 3001))
        assert publisher.unconfirmed == 0
        assert publisher.statistics()["unconfirmed_bytes"] == 0
    assert stored(cluster) == numbers(3003)
    assert cluster.node.live() == []


@pytest.mark.medium
async def test_messages_sent_one_by_one_share_frames(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for body in numbers(1024):
            await publisher.send(body)
        await publisher.flush()
    frames = [len(command.messages) for command in cluster.node.received(Publish)]
    assert sum(frames) == 1024
    assert len(frames) <= 4


async def test_a_message_that_is_never_confirmed_fails_after_the_timeout(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env, env.publisher("s", confirm_timeout=30.0) as publisher:
        start = anyio.current_time()
        with pytest.raises(PublishFailed, match="not confirmed within 30 s") as caught:
            await publisher.publish(b"x")
        assert 30 <= anyio.current_time() - start < 61
        assert (caught.value.publishing_id, caught.value.code, caught.value.stream) == (1, 0, "s")
        assert publisher.unconfirmed == 0


async def test_a_refusal_reaches_the_one_who_waits(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    cluster.node.scripts[Publish] = refuse(Code.ACCESS_REFUSED)
    async with connect(cluster) as env, env.publisher("s") as publisher:
        with pytest.raises(PublishFailed, match="no permission") as caught:
            await publisher.publish(b"x")
        assert caught.value.code == Code.ACCESS_REFUSED
        with pytest.raises(PublishFailed, match="5 messages in all"):
            await publisher.publish_many(numbers(5))
        await publisher.flush()


async def test_a_refusal_nobody_waits_for_is_raised_by_flush(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.scripts[Publish] = refuse(Code.ACCESS_REFUSED)
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.send_many(numbers(3))
        with pytest.raises(PublishFailed) as caught:
            await publisher.flush()
        assert caught.value.publishing_id == 1
        await publisher.flush()
        await publisher.send(b"again")
        with pytest.raises(PublishFailed):
            await publisher.__aexit__(None, None, None)


async def test_callbacks_get_ids_and_may_raise(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    confirmed: list[int] = []
    failed: list[tuple[list[int], int]] = []

    def on_confirm(ids: Any) -> None:
        confirmed.extend(ids)
        raise ValueError("a callback's own mistake")

    async with connect(cluster) as env:
        publisher = env.publisher(
            "s",
            on_confirm=on_confirm,
            on_error=lambda ids, error: failed.append((list(ids), error.code)),
        )
        async with publisher:
            await publisher.send_many(numbers(3))
            await publisher.flush()
            cluster.node.scripts[Publish] = refuse(Code.ACCESS_REFUSED)
            await publisher.send(b"x")
            await publisher.flush()
    assert confirmed == [1, 2, 3]
    assert failed == [([4], Code.ACCESS_REFUSED)]
    assert "a callback of a publisher raised" in caplog.text


def refuse(code: int) -> Any:
    def script(session: Session, command: Any) -> bool:
        ids = command.messages.ids
        session.send(PublishError(command.publisher_id, tuple((n, code) for n in ids)))
        return True

    return script


async def test_pitfall_12_ids_increase_whoever_sends(cluster: Cluster, connect: Connect) -> None:
    """Pitfall 12: one task encodes and sends; frames end below the negotiated frame_max."""
    cluster.add("s")
    cluster.node.frame_max = 4096
    async with connect(cluster) as env, env.publisher("s") as publisher:

        async def send(task: int) -> None:
            for number in range(50):
                if number % 3:
                    await publisher.send(b"%d" % number * 100)
                else:
                    await publisher.send_many([b"%d" % task * 50] * 20)

        async with anyio.create_task_group() as group:
            for task in range(10):
                group.start_soon(send, task)
        await publisher.flush()
    frames: list[Any] = [command.messages for command in cluster.node.received(Publish)]
    ids = [number for entries in frames for number in entries.ids]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) == 10 * (17 * 20 + 33)
    for entries in frames:
        assert 9 + sum(8 + len(entry) for entry in entries.entries) <= 4096


async def test_ids_of_ones_own_deduplicate(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s").sequences["me"] = 5
    async with connect(cluster) as env, env.publisher("s", reference="me") as publisher:
        await publisher.send_many([b"4", b"5", b"7"], publishing_ids=[4, 5, 7])
        await publisher.publish(b"9", publishing_id=9)
        await publisher.publish(b"10")
        with pytest.raises(ConfigurationError, match="must strictly increase"):
            await publisher.send(b"9", publishing_id=9)
        with pytest.raises(ConfigurationError, match="must strictly increase"):
            await publisher.send_many([b"", b""], publishing_ids=[12, 12])
    assert stored(cluster) == [b"7", b"9", b"10"]


async def test_an_exception_in_the_block_flushes_for_a_moment_only(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster, close_timeout=5.0) as env:
        start = anyio.current_time()
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with env.publisher("s", confirm_timeout=None) as publisher:
                await publisher.send(b"x")
                raise ZeroDivisionError
        assert anyio.current_time() - start < 12
        with pytest.raises(ConnectionClosed):
            await publisher.send(b"x")


@pytest.mark.slow
async def test_two_hundred_and_fifty_six_publishers_share_a_connection(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env:
        publishers = [env.publisher("s") for _ in range(257)]
        for publisher in publishers:
            await publisher.__aenter__()
        sessions = cluster.node.live("publishing")
        assert sorted(len(session.publishers) for session in sessions) == [1, 256]
        for publisher in publishers:
            await publisher.publish(b"x")
            await publisher.__aexit__(None, None, None)
        assert cluster.node.live("publishing") == []


async def test_what_happens_is_told(cluster: Cluster, connect: Connect, recorder: Recorder) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish_many(numbers(3))
    assert sum(event.messages for event in recorder.of(Published)) == 3
    assert [(e.messages, e.code) for e in recorder.of(Confirmed)] == [(3, 1)]
    states = [(e.kind, e.state) for e in recorder.of(StateChanged)]
    assert states == [
        ("environment", "open"),
        ("publisher", "connecting"),
        ("publisher", "open"),
        ("publisher", "closed"),
        ("environment", "closed"),
    ]
    assert cluster.node.received(DeclarePublisher)[0].reference is None
