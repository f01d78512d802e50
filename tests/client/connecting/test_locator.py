"""The locator finds the nodes of streams, also behind load balancers, and recovers by itself."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import Address, State
from flowstream.errors import (
    ConnectionFailed,
    RequestTimeout,
)
from flowstream.protocol import (
    StreamStats,
)
from flowstream.telemetry import ConnectionLost, ConnectionOpened, StateChanged
from tests.client.conftest import Connect, Recorder
from tests.client.scripted import Cluster, Node, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def roles(node: Node) -> list[str]:
    """The roles of the live connections, from their names (NAME-ROLE-NUMBER)."""
    return sorted(session.name.split("-")[1] for session in node.live())


@pytest.mark.parametrize(
    "urls",
    [
        ["rabbitmq-stream://node0:5552", "rabbitmq-stream://node1:5552"],
        "rabbitmq-stream://node0:5552,node1:5552",
        "rabbitmq-stream://node0,node1",
        ("rabbitmq-stream://node0,node1", "rabbitmq-stream://node0"),
    ],
)
async def test_the_first_seed_that_answers_is_used(connect: Connect, urls: Any) -> None:
    cluster = Cluster(2)
    cluster.nodes[0].up = False
    async with connect(cluster, urls) as env:
        assert await env.stream_exists("s") is False
    cluster.nodes[1].up = False
    with pytest.raises(ConnectionFailed, match=r"node0:5552.*node1:5552"):
        async with connect(cluster, urls):
            pass


async def test_the_locator_heals_itself_from_nodes_met_before(
    connect: Connect, recorder: Recorder
) -> None:
    cluster = Cluster(3)
    async with connect(cluster, "rabbitmq-stream://node0:5552,node1:5552") as env:
        cluster.nodes[0].kill()
        await env.wait_for(State.RECOVERING)
        await env.wait_for(State.OPEN)
        cluster.nodes[1].kill()
        await env.wait_for(State.RECOVERING)
        await anyio.sleep(30)
        assert env.state is State.RECOVERING
        with pytest.raises(ConnectionFailed):
            await env.stream_exists("s")
        cluster.nodes[0].up = True
        await env.wait_for(State.OPEN)
        assert len(cluster.nodes[0].live("locating")) == 1
    states = [event.state for event in recorder.of(StateChanged)]
    assert states == ["open", "recovering", "open", "recovering", "open", "closed"]
    assert len(recorder.of(ConnectionOpened)) == len(recorder.of(ConnectionLost)) == 3


async def test_the_node_that_was_lost_is_tried_last(connect: Connect) -> None:
    """A machine that is gone does not refuse: it would take the whole `connect_timeout`."""
    cluster = Cluster(3)
    async with connect(cluster, "rabbitmq-stream://node0,node1,node2") as env:
        cluster.dialled.clear()
        cluster.nodes[0].kill()
        await env.wait_for(State.RECOVERING)
        await env.wait_for(State.OPEN)
        assert cluster.dialled == [Address("node1", 5552)]


async def test_a_query_on_a_connection_that_proves_dead_is_asked_again(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0"])

    def drop_once(session: Session, command: StreamStats) -> bool:
        del cluster.node.scripts[StreamStats]
        session.drop()
        return True

    async with connect(cluster) as env:
        cluster.node.scripts[StreamStats] = drop_once
        assert (await env.stream_stats("s")).first_offset == 0


async def test_a_locator_that_does_not_answer_is_left(connect: Connect) -> None:
    """A half-open connection: heartbeats alone would notice it only after two minutes."""
    cluster = Cluster(2)
    cluster.add("s", [b"0"])
    urls = ["rabbitmq-stream://node0:5552", "rabbitmq-stream://node1:5552"]
    async with connect(cluster, urls, request_timeout=5.0) as env:
        for session in cluster.node.live():
            session.mute = True
        cluster.node.up = False
        with pytest.raises(RequestTimeout, match="node0:5552 did not answer Metadata within 5 s"):
            await env.stream_exists("s")
        assert await env.stream_exists("s")
        assert cluster.node.live() == []
        assert len(cluster.nodes[1].live("locating")) == 1


async def test_an_address_resolver_says_where_to_dial(connect: Connect) -> None:
    cluster = Cluster(2)
    cluster.add("s", [b"0"])
    for number, node in enumerate(cluster.nodes):
        node.address = Address(f"inside{number}", 1)
    cluster.balanced = [0, 0]
    asked: list[Address] = []

    def resolver(address: Address) -> Address:
        asked.append(address)
        return Address("outside", 7)

    async with connect(cluster, address_resolver=resolver) as env, env.publisher("s"):
        pass
    assert asked == [Address("inside0", 1)]
    assert cluster.dialled == [Address("node0", 5552), Address("outside", 7)]


async def test_what_the_locator_reached_is_where_its_node_is(connect: Connect) -> None:
    """A broker in a container advertises a name that does not resolve outside of it."""
    cluster = Cluster(1)
    cluster.add("s", [b"0"])
    cluster.node.address = Address("a3f0c1", 5552)
    cluster.balanced = [0] * 10
    async with connect(cluster) as env, env.publisher("s"), env.consumer("s"):
        assert set(cluster.dialled) == {Address("node0", 5552)}


async def test_pitfall_15_behind_a_load_balancer_it_connects_until_the_node_is_right(
    connect: Connect,
) -> None:
    """Pitfall 15: compare the advertised pair, connect again until they match, bounded."""
    cluster = Cluster(3)
    cluster.add("s", [b"0"])
    cluster.leaders["s"] = 2
    cluster.balanced = [0, 0, 1, 0, 2]
    options = {"address_resolver": lambda address: Address("balancer", 5552)}
    async with connect(cluster, **options) as env, env.publisher("s") as publisher:
        assert roles(cluster.nodes[2]) == ["publishing"]
        assert roles(cluster.nodes[0]) == ["locating"]
        assert roles(cluster.nodes[1]) == []
        await publisher.publish(b"x")
    cluster.balanced = [0] * 100
    async with connect(cluster, node_attempts=4, **options) as env:
        with pytest.raises(ConnectionFailed, match=r"node2:5552 did not answer in 4 attempts"):
            await env.publisher("s").__aenter__()
        assert roles(cluster.nodes[0]) == ["locating"]
