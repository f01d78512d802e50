"""A subscription follows its stream over lost connections, nodes and streams created again."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest

from flowstream.client import State
from flowstream.errors import (
    NotSupported,
    StreamDoesNotExist,
    StreamNotAvailable,
)
from flowstream.protocol import (
    Close,
    Code,
    CreditError,
    Deliver,
    Key,
    Response,
    Subscribe,
    Unsubscribe,
    build_chunk,
    simple_entry,
)
from tests.client.bodies import chunks, numbers, read
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_a_broker_that_stops_sending_is_asked_again(
    cluster: Cluster, connect: Connect
) -> None:
    """As RabbitMQ does if retention removes the segment that follows the one it reads."""
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 20) == numbers(10)  # it waits for more
        subscribed = len(cluster.node.received(Subscribe))
        for first in (10, 15):
            entries = [simple_entry(body) for body in numbers(5, first)]
            cluster.streams["s"].append(entries, 5, cluster.node.tick())
        assert await read(consumer, 10) == numbers(10, 10)
        assert len(cluster.node.received(Subscribe)) > subscribed
        assert consumer.position == 20


@pytest.mark.parametrize("offset", ["next", "last"])
async def test_next_and_last_lose_nothing_when_the_connection_ends_before_the_first_chunk(
    cluster: Cluster, connect: Connect, offset: Literal["next", "last"]
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.consumer("s", offset=offset) as consumer:
        [session] = cluster.node.live("consuming")
        session.drop()
        await consumer.wait_for(State.RECOVERING)
        cluster.streams["s"].append([simple_entry(b"0")], 1, cluster.node.tick())
        assert await read(consumer, 1) == [b"0"]


async def test_pitfall_17_a_server_that_says_goodbye_is_answered_and_left(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 17: answer a server's Close, then recover."""
    cluster.add("s", *chunks(30))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        bodies = await read(consumer, 50)
        [session] = cluster.node.live("consuming")
        session.send(Close(7, 1, "maintenance"))
        bodies += await read(consumer, 250)
        assert bodies == numbers(300)
        assert Response(Key.CLOSE, 7, 1) in session.received


async def test_pitfall_16_readers_go_to_replicas_and_fall_back_to_the_leader(
    connect: Connect,
) -> None:
    """Pitfall 16: Subscribe needs a node with a member."""
    cluster = Cluster(3)
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env:
        async with env.consumer("s") as consumer:
            await read(consumer, 10)
            assert cluster.nodes[0].live("consuming") == []
        for node in cluster.nodes[1:]:
            node.scripts[Subscribe] = not_available
        async with env.consumer("s") as consumer:
            assert await read(consumer, 10) == numbers(10)
            assert len(cluster.nodes[0].live("consuming")) == 1


def not_available(session: Session, command: Subscribe) -> bool:
    session.ok(Key.SUBSCRIBE, command.correlation_id, Code.STREAM_NOT_AVAILABLE)
    return True


async def test_pitfall_14_it_follows_its_stream(connect: Connect) -> None:
    """Pitfall 14: MetadataUpdate means "look again"."""
    cluster = Cluster(3)
    cluster.add("s", *chunks(20))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        bodies = await read(consumer, 50)
        cluster.nodes[1].up = cluster.nodes[2].up = False
        cluster.node.forget("s")
        bodies += await read(consumer, 150)
        assert bodies == numbers(200)
        assert len(cluster.nodes[0].live("consuming")) == 1


async def test_a_stream_created_again_is_read_from_its_beginning(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(5))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        del cluster.streams["s"]
        cluster.node.forget("s")
        await consumer.wait_for(State.RECOVERING)
        await anyio.sleep(2)
        cluster.add("s", *chunks(2))
        assert await read(consumer, 20) == numbers(20)


async def test_a_stream_created_again_at_once_is_noticed_too(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(5))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        cluster.add("s", *chunks(8))
        cluster.node.forget("s")
        assert await read(consumer, 80) == numbers(80)


async def test_a_replica_that_is_behind_is_not_taken_for_another_stream(
    cluster: Cluster, connect: Connect
) -> None:
    log = cluster.add("s", *chunks(10))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 100) == numbers(100)
        log.index = lambda spec: 7  # type: ignore[method-assign]
        cluster.node.live("consuming")[0].drop()
        await consumer.wait_for(State.RECOVERING)
        log.append([simple_entry(body) for body in numbers(5, 100)], 5, cluster.node.tick())
        assert await read(consumer, 5) == numbers(5, 100)
        assert consumer.statistics()["recoveries"] == 1


@pytest.mark.medium
async def test_a_new_leader_that_knows_of_nothing_committed_is_waited_for(
    cluster: Cluster, connect: Connect
) -> None:
    """It sends nothing for a moment, as if its stream were empty: and so a new one."""
    cluster.add("s", *chunks(10))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        cluster.node.uncommitted = True
        cluster.node.forget("s")
        await consumer.wait_for(State.RECOVERING)
        await anyio.sleep(2)
        assert consumer.state is State.RECOVERING
        with pytest.raises(StreamNotAvailable, match="does not know yet what is committed"):
            await env.last_offset("s")
        cluster.node.uncommitted = False
        assert await read(consumer, 50) == numbers(50, 50)
        assert consumer.position == 100


async def test_a_stream_created_again_and_empty_is_waited_for(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(5))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        new = cluster.add("s")
        cluster.node.forget("s")
        await consumer.wait_for(State.RECOVERING)
        await anyio.sleep(2)
        assert consumer.state is State.OPEN
        new.append([simple_entry(b"0")], 1, cluster.node.tick())
        cluster.node.deliver("s")
        assert await read(consumer, 1) == [b"0"]
        assert consumer.position == 1


async def test_a_missing_stream_fails_at_once_then_after_a_while(
    cluster: Cluster, connect: Connect
) -> None:
    async with connect(cluster, missing_timeout=10.0) as env:
        with pytest.raises(StreamDoesNotExist, match="nope"):
            await env.consumer("nope").__aenter__()
        cluster.add("s", *chunks(1))
        async with env.consumer("s") as consumer:
            await read(consumer, 10)
            del cluster.streams["s"]
            cluster.node.forget("s")
            with pytest.raises(StreamDoesNotExist):
                await anext(consumer)
            assert consumer.state is State.CLOSED
            with pytest.raises(StreamDoesNotExist):
                await anext(consumer)
        assert env.statistics()["subscriptions"] == 0


async def test_old_servers_are_told_apart(connect: Connect) -> None:
    cluster = Cluster(version="3.10.8")
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env:
        with pytest.raises(NotSupported, match=r"RabbitMQ 3\.13"):
            await env.consumer("s", filter_values=["a"], match=bool).__aenter__()
        with pytest.raises(NotSupported, match=r"RabbitMQ 3\.11"):
            await env.consumer("s", reference="n", single_active=True).__aenter__()
        async with env.consumer("s") as consumer:
            delivery = await anext(consumer)
            assert delivery.bodies == numbers(10)


async def test_pitfall_5_deliveries_after_the_end_are_dropped(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 5: deliveries can still arrive before Unsubscribe's answer."""
    cluster.add("s", *chunks(1))

    def late(session: Session, command: Unsubscribe) -> bool:
        chunk = build_chunk([simple_entry(b"10")], records=1, offset=10, timestamp=1)
        session.send(Deliver(command.subscription_id, chunk, 10))
        return False

    cluster.node.scripts[Unsubscribe] = late
    async with connect(cluster) as env:
        async with env.consumer("s") as consumer:
            await read(consumer, 10)
        with pytest.raises(StopAsyncIteration):
            await anext(consumer)
        assert consumer.statistics()["buffered_chunks"] == 0


async def test_pitfall_5_deliveries_before_subscribes_answer_are_kept(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 5: the handler is registered before Subscribe is sent."""
    cluster.add("s", *chunks(1))

    def early(session: Session, command: Subscribe) -> bool:
        chunk = build_chunk(
            [simple_entry(body) for body in numbers(10)], records=10, offset=0, timestamp=1
        )
        session.send(Deliver(command.subscription_id, chunk, 0))
        session.ok(Key.SUBSCRIBE, command.correlation_id)
        return True

    cluster.node.scripts[Subscribe] = early
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 10) == numbers(10)


async def test_pitfall_6_refused_credit_is_nothing_special(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 6: credit errors have no correlation id; code 17 after a demotion is normal."""
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        cluster.node.live("consuming")[0].send(CreditError(17, 0))
        cluster.node.live("consuming")[0].send(CreditError(4, 99))
        assert await read(consumer, 30) == numbers(30)
        assert consumer.statistics()["recoveries"] == 0
