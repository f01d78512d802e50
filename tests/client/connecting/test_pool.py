"""Connections are pooled by role and node; one that does not answer takes nobody new."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from flowstream.client import Address, State
from flowstream.errors import (
    ConnectionFailed,
)
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Node
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def roles(node: Node) -> list[str]:
    """The roles of the live connections, from their names (NAME-ROLE-NUMBER)."""
    return sorted(session.name.split("-")[1] for session in node.live())


async def test_roles_never_share_a_connection(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", [b"0"])
    async with connect(cluster, name="app") as env:
        async with env.publisher("s"), env.publisher("s"), env.consumer("s"), env.consumer("s"):
            await env.store_offset("me", "s", 1)
            assert roles(cluster.node) == ["consuming", "locating", "publishing", "tracking"]
            assert env.statistics() == {
                "connections": 4,
                "publishers": 2,
                "subscriptions": 2,
                "tasks": 4 + 2 * 2 + 2 + 2,
            }
        assert roles(cluster.node) == ["locating", "tracking"]
    assert cluster.node.live() == []
    assert env.statistics()["tasks"] == 0
    assert env.state is State.CLOSED


async def test_a_connection_that_does_not_answer_takes_nobody_new(
    cluster: Cluster, connect: Connect
) -> None:
    """A broker that reads no more (an alarm) keeps those it has; others go to a new connection."""
    cluster.add("s", [b"0"])
    async with connect(cluster, request_timeout=5.0) as env, env.publisher("s") as publisher:
        [blocked] = cluster.node.live("publishing")
        blocked.mute = True
        async with env.publisher("s") as other:  # asked there once, and then elsewhere
            await other.publish(b"1")
            assert len(cluster.node.live("publishing")) == 2
        assert publisher.statistics()["recoveries"] == 0
        blocked.mute = False


@pytest.mark.medium
async def test_who_waits_for_a_node_shares_the_outcome(connect: Connect) -> None:
    """A node that swallows connections costs its timeout once, not once for each publisher."""
    cluster = Cluster(2)
    for number in range(50):
        cluster.add(f"s{number}")
    urls = ["rabbitmq-stream://node1:5552", "rabbitmq-stream://node0:5552"]
    async with connect(cluster, urls) as env, AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(env.publisher(f"s{number}", confirm_timeout=None))
            for number in range(50)
        ]
        dial = cluster.dial

        async def swallow(address: Address) -> Any:
            if address.host == "node0":
                await anyio.sleep(10)
                raise ConnectionFailed("no answer in 10 s")
            return await dial(address)

        env._manager.dial = swallow
        for session in cluster.node.live():
            session.drop()
        await publishers[0].wait_for(State.RECOVERING)
        await anyio.sleep(5)
        cluster.leaders = {f"s{number}": 1 for number in range(50)}
        start = anyio.current_time()
        for publisher in publishers:
            await publisher.publish(b"0")
        assert anyio.current_time() - start < 20


@pytest.mark.medium
async def test_a_node_that_was_lost_is_not_chosen_again_while_there_are_others(
    connect: Connect,
) -> None:
    """Brokers may name a node that has just died; each attempt to reach it could take seconds."""
    cluster = Cluster(3)
    cluster.add("s", [b"0"])
    async with connect(cluster) as env, env.consumer("s") as consumer:
        for _ in range(20):
            [lost] = [node for node in cluster.nodes if node.live("consuming")]
            before = len(lost.sessions)
            lost.live("consuming")[0].drop()
            await consumer.wait_for(State.RECOVERING)
            await consumer.wait_for(State.OPEN)
            assert len(lost.sessions) == before
            await anyio.sleep(20)
