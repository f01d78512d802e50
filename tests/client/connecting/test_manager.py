"""News of streams reach only the publishers and consumers that use them."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream.client import State
from flowstream.protocol import (
    MetadataUpdate,
    Tune,
)
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_metadata_updates_reach_only_the_streams_users(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("a", [b"0"])
    cluster.add("b", [b"0"])
    async with connect(cluster) as env, env.consumer("a") as a, env.consumer("b") as b:
        cluster.node.live("consuming")[0].send(MetadataUpdate(6, "a"))
        await a.wait_for(State.RECOVERING)
        await a.wait_for(State.OPEN)
        assert a.statistics()["recoveries"] == 1
        assert b.statistics()["recoveries"] == 0


async def test_what_comes_in_behind_the_end_of_a_connection_does_no_harm(
    cluster: Cluster, connect: Connect
) -> None:
    """As a Tune does when opening is cancelled: it asks for an answer that cannot be sent."""
    async with connect(cluster) as env:
        [connection] = env._manager.connections
        connection.abort("the handshake was not completed", "handshake")

        async def late() -> None:
            connection._dispatch(Tune(1 << 20, 60))

        await connection._guarded(late)
        await env.wait_for(State.OPEN)
