"""A run with workers on three real nodes: a worker and a node are killed, and all are replaced.

Messages are published meanwhile. Afterwards every message of every partition has been handled, and
what was handled twice is bounded by what was in flight.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync

from flowstream.client import Environment
from tests.brokers.running import Broker
from tests.chaos.cluster import Nodes
from tests.cli.workers.fleet import WINDOW, Fleet
from tests.support.reading import contents

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]

GROUP = 100
PAUSE = 0.5
MOST = 1_000_000
"""Messages are published until all has happened, however long that takes on this machine."""


def seeds(cluster: tuple[Broker, ...]) -> str:
    """One address with all nodes."""
    first = cluster[0].url
    places = [re.search(r"@([^/]+)", node.url) for node in cluster]
    return re.sub(r"@[^/]+", "@" + ",".join(place[1] for place in places if place), first)


async def leader_of(broker: Broker, stream: str) -> int:
    """The port of the stream's leader, once it has one."""
    async with Environment(broker.url) as environment:
        while True:
            leader = (await environment.metadata(stream)).leader
            if leader is not None:
                return leader.port
            await anyio.sleep(0.1)


async def test_workers_outlast_a_worker_a_node_and_a_roll(
    cluster: tuple[Broker, ...], tmp_path: Path
) -> None:
    nodes = Nodes(cluster)
    await run_sync(nodes.ensure)
    await run_sync(nodes.settle)
    broker = replace(cluster[0], url=seeds(cluster))
    with Fleet(broker, tmp_path) as fleet:
        await fleet.begin()
        published, finished = 0, False

        async def pause() -> bool:
            await anyio.sleep(PAUSE)
            return finished

        async def publish() -> None:
            nonlocal published
            published = await fleet.publish(0, MOST, pause)

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(publish)
                await run_sync(fleet.until, lambda: len(fleet.handled()) > 5 * GROUP)

                os.kill(fleet.snapshot()["workers"][1]["pid"], signal.SIGKILL)
                await run_sync(
                    fleet.until,
                    lambda: {it["restarts"] for it in fleet.snapshot()["workers"]} == {0, 1},
                )
                await run_sync(fleet.until, lambda: fleet.readers() == {1, 2})

                number = nodes.number(await leader_of(broker, f"{fleet.name}-0"))
                await run_sync(nodes.kill, number)
                handled = len(fleet.handled())
                await run_sync(fleet.until, lambda: len(fleet.handled()) > handled + 3 * GROUP)
                await run_sync(nodes.start, number)
                await run_sync(fleet.until, lambda: fleet.readers() == {1, 2})

                rolled = await run_sync(fleet.command, "workers", "restart")
                assert rolled.code == 0, rolled.err
                finished = True
            there = set()
            async with Environment(broker.url) as environment:
                for partition in await environment.partitions(fleet.name):
                    offsets = [offset for offset, *_ in await contents(environment, partition)]
                    there |= {(partition, offset) for offset in offsets}
            assert len(there) >= published > 5 * GROUP
            await run_sync(fleet.until, lambda: there <= fleet.handled().keys())
        finally:
            await run_sync(nodes.ensure)
        assert fleet.handled().keys() == there
        assert fleet.handled().total() - len(there) <= 3 * WINDOW
        fleet.run.send_signal(signal.SIGTERM)
        result = await run_sync(fleet.end)
        assert result.code == 0, result.err
