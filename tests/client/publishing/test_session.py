"""A publisher over lost connections: unconfirmed messages are sent again, in order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import State
from flowstream.errors import (
    NotSupported,
    PublishFailed,
    StreamDoesNotExist,
)
from flowstream.protocol import (
    Code,
    Compression,
    Publish,
    PublishConfirm,
    PublishError,
    QueryPublisherSequence,
)
from tests.client.bodies import numbers, stored
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def batches_of(session: Session) -> list[Any]:
    return [batch for c in session.received if isinstance(c, Publish) for batch in c.messages]


def refuse(code: int) -> Any:
    def script(session: Session, command: Any) -> bool:
        ids = command.messages.ids
        session.send(PublishError(command.publisher_id, tuple((n, code) for n in ids)))
        return True

    return script


async def test_unconfirmed_messages_are_sent_again_with_their_ids_before_new_ones(
    cluster: Cluster, connect: Connect
) -> None:
    log = cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env, env.publisher("s", reference="me") as publisher:
        await publisher.send_many(numbers(10))
        [session] = cluster.node.live("publishing")
        while not cluster.node.received(Publish):
            await anyio.lowlevel.checkpoint()
        session.send(PublishConfirm(0, (1, 3, 4)))
        await anyio.wait_all_tasks_blocked()
        session.drop()
        await publisher.wait_for(State.RECOVERING)
        await publisher.send_many(numbers(2, 10))
        cluster.node.unconfirming = False
        await publisher.flush()
        assert publisher.statistics()["recoveries"] == 1
    assert stored(cluster) == numbers(12)
    assert log.sequences == {"me": 12}
    again = cluster.node.live("publishing") or cluster.node.sessions[-1:]
    frames: list[Any] = [c.messages for s in again for c in s.received if isinstance(c, Publish)]
    frames = [entries.ids for entries in frames]
    assert frames[0] == [2, 5, 6, 7, 8, 9, 10]
    assert [number for frame in frames for number in frame][-2:] == [11, 12]


async def test_pitfall_11_a_confirm_may_come_before_the_write_has_ended(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 11: an entry is registered before its bytes are written."""
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        [session] = cluster.node.live("publishing")
        written = anyio.Event()

        async def send(data: bytes) -> None:
            session.feed(data)
            await written.wait()

        session.socket.send = send  # type: ignore[method-assign, assignment]
        await publisher.publish_many(numbers(5))
        assert publisher.unconfirmed == 0
        written.set()


async def test_pitfall_11_confirms_are_a_set(cluster: Cluster, connect: Connect) -> None:
    """Pitfall 11: in any order, some twice, some of nobody."""
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.send_many(numbers(10))
        [session] = cluster.node.live("publishing")
        for ids, left in [((7, 3, 9), 7), ((3, 7), 7), ((99, 0), 7), ((1, 10), 5), ((6, 2, 6), 3)]:
            await anyio.wait_all_tasks_blocked()
            session.send(PublishConfirm(0, ids))
            await anyio.wait_all_tasks_blocked()
            assert publisher.unconfirmed == left
        session.send(PublishConfirm(0, (8, 5, 4)))
        await publisher.flush()
        assert publisher.unconfirmed == 0


async def test_pitfall_13_a_forgotten_publisher_is_declared_again(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 13: PublishError 18 after MetadataUpdate: declare again and send again."""
    cluster.add("s")
    once = [refuse(Code.PUBLISHER_DOES_NOT_EXIST)]
    cluster.node.scripts[Publish] = lambda session, c: bool(once) and once.pop()(session, c)
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish_many(numbers(5))
        assert publisher.statistics()["recoveries"] == 1
    assert stored(cluster) == numbers(5)


async def test_it_follows_the_leader(connect: Connect) -> None:
    cluster = Cluster(3)
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish(b"0")
        cluster.leaders["s"] = 2
        cluster.node.forget("s")
        await publisher.publish(b"1")
        assert len(cluster.nodes[2].live("publishing")) == 1
        assert cluster.nodes[0].live("publishing") == []
    assert stored(cluster) == [b"0", b"1"]


async def test_pitfall_14_a_stream_without_a_leader_is_waited_for(connect: Connect) -> None:
    """Pitfall 14: leader 65535 or missing from the broker list means no leader now: try again."""
    cluster = Cluster(2)
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        cluster.leaders["s"] = 7
        cluster.node.forget("s")
        await publisher.send(b"waits")
        await anyio.sleep(3)
        assert publisher.state is State.RECOVERING
        cluster.leaders["s"] = 1
        await publisher.flush()
    assert stored(cluster) == [b"waits"]


async def test_a_deleted_stream_is_given_up_after_the_missing_timeout(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster, missing_timeout=20.0) as env:
        with pytest.raises(PublishFailed, match="the stream does not exist"):  # noqa: PT012
            async with env.publisher("s", confirm_timeout=None) as publisher:
                del cluster.streams["s"]
                cluster.node.forget("s")
                await publisher.wait_for(State.RECOVERING)
                await publisher.send(b"x")
                await publisher.wait_for(State.CLOSED)
                depths = set()
                for _ in range(5):
                    with pytest.raises(StreamDoesNotExist) as caught:
                        await publisher.send(b"x")
                    depths.add(len(caught.traceback))
                assert len(depths) == 1  # its traceback does not grow each time it is raised


async def test_an_unconfirmed_message_says_what_its_publisher_waits_for(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s", confirm_timeout=5.0) as publisher:
        await publisher.publish(b"1")
        del cluster.streams["s"]
        cluster.node.forget("s")
        with pytest.raises(PublishFailed) as caught:
            await publisher.publish(b"2")
    assert "not confirmed within 5 s; the publisher waits, because:" in str(caught.value)
    assert "the stream does not exist" in str(caught.value)


async def test_a_deleted_and_created_stream_goes_on(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.publish(b"old")
        del cluster.streams["s"]
        cluster.node.forget("s")
        await publisher.wait_for(State.RECOVERING)
        await publisher.send(b"new")
        await anyio.sleep(2)
        cluster.add("s")
        await publisher.flush()
    assert stored(cluster) == [b"new"]


async def test_recovery_is_given_up_after_its_timeout(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster, recovery_timeout=60.0) as env:
        with pytest.raises(PublishFailed, match="no broker"):  # noqa: PT012
            async with env.publisher("s", confirm_timeout=None) as publisher:
                cluster.node.kill()
                await publisher.wait_for(State.RECOVERING)
                await publisher.send(b"x")
                start = anyio.current_time()
                await publisher.wait_for(State.CLOSED)
                assert 55 < anyio.current_time() - start < 70


async def test_the_first_attempt_fails_at_once(cluster: Cluster, connect: Connect) -> None:
    async with connect(cluster) as env:
        with pytest.raises(StreamDoesNotExist) as caught:
            async with env.publisher("nope"):
                pass
        assert (caught.value.code, caught.value.stream) == (2, "nope")
        assert env.statistics()["publishers"] == 0


async def test_a_name_goes_on_with_the_brokers_sequence(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s").sequences["me"] = 41
    async with connect(cluster) as env, env.publisher("s", reference="me") as publisher:
        assert publisher.last_publishing_id == 41
        await publisher.publish(b"x")
    assert cluster.streams["s"].sequences["me"] == 42
    assert len(cluster.node.received(QueryPublisherSequence)) == 1


async def test_filter_values_need_a_server_that_knows_them(connect: Connect) -> None:
    old = Cluster(version="3.10.8")
    old.add("s")
    async with connect(old) as env, env.publisher("s") as publisher:
        with pytest.raises(NotSupported, match=r"RabbitMQ 3\.13"):
            await publisher.send(b"x", filter_value="eu")


@pytest.mark.parametrize("compression", list(Compression))
async def test_pitfall_12_sub_entries_are_sent_again_as_they_were(
    cluster: Cluster, connect: Connect, compression: Compression
) -> None:
    """Pitfall 12: sub-entries are never batched anew when they are sent again."""
    cluster.add("s")
    cluster.node.unconfirming = True
    options: dict[str, Any] = {"sub_entry_size": 10, "compression": compression}
    async with connect(cluster) as env, env.publisher("s", reference="r", **options) as publisher:
        for body in numbers(25):
            await publisher.send(body)
        await anyio.wait_all_tasks_blocked()
        assert publisher.unconfirmed == 25
        [session] = cluster.node.live("publishing")
        before = batches_of(session)
        session.drop()
        await publisher.wait_for(State.RECOVERING)
        await publisher.wait_for(State.OPEN)
        cluster.node.unconfirming = False
        await publisher.send(b"25")
        await anyio.wait_all_tasks_blocked()
        [session] = cluster.node.live("publishing")
        session.send(PublishConfirm(0, (1, 2, 3)))
        await publisher.flush()
        after = batches_of(session)
    assert before == after[:3]
    assert [batch.records for batch in after] == [10, 10, 5, 1]
    assert [batch.publishing_id for batch in after] == [1, 2, 3, 4]
