"""A partition that the broker has left without a reader is assigned again."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client.consuming.orphans import AWAY, LOOK, STANDSTILL, WATCHED, Standstill
from flowstream.protocol import Subscribe
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def looks(seconds: float, **what: Any) -> list[float]:
    """When it says that nobody reads, if the same is seen every LOOK seconds."""
    seen, values = Standstill(), {"stored": 5, "end": 9} | what
    times = [LOOK * n for n in range(int(seconds / LOOK))]
    return [now for now in times if seen.looked(now=now, **values)]


def test_a_stored_offset_that_stays_is_a_standstill() -> None:
    assert looks(3 * STANDSTILL) == [STANDSTILL, 2 * STANDSTILL]


@pytest.mark.parametrize("what", [{"stored": None}, {"end": None}, {"stored": 9}, {"stored": 12}])
def test_a_partition_without_unhandled_messages_is_left_alone(what: dict[str, Any]) -> None:
    assert looks(2000, **what) == []


def test_a_stored_offset_that_moves_is_a_reader() -> None:
    seen = Standstill()
    for stored in range(100):
        assert not seen.looked(stored, 1000, stored * 2 * STANDSTILL)


def test_only_a_partition_whose_connection_was_lost_lately_is_suspect() -> None:
    """At other times another member may be slow, or paused."""
    seen = Standstill()
    assert not seen.is_suspect(0, 5)
    assert seen.is_suspect(1, 6)
    assert seen.is_suspect(1, 6 + WATCHED)
    assert not seen.is_suspect(1, 7 + WATCHED)
    assert seen.is_suspect(2, 500)


async def member(
    cluster: Cluster, connect: Connect, *, stored: int, seconds: float
) -> tuple[bool, int]:
    """Of a standby that had lost its connection: whether it is in the group, and how often it
    joined again."""
    cluster.super_streams["invoices"] = ["invoices-0"]
    log = cluster.add("invoices-0", [b"0"], [b"1"], [b"2"])
    log.offsets["me"] = stored

    def joins() -> int:
        subscribed = cluster.node.received(Subscribe)
        return sum("single-active-consumer" in command.properties for command in subscribed)

    async with (
        connect(cluster) as env,
        env.super_stream_consumer("invoices", reference="me", single_active=True),
    ):
        await anyio.sleep(1)
        cluster.node.live("consuming")[0].drop()
        await anyio.sleep(1)
        cluster.node.live("consuming")[0].promote(0, active=False)
        joined = joins()
        await anyio.sleep(seconds)
        return bool(cluster.node.live("consuming")), joins() - joined


@pytest.mark.medium
async def test_a_member_leaves_an_orphaned_partition_and_comes_back(
    cluster: Cluster, connect: Connect
) -> None:
    assert await member(cluster, connect, stored=0, seconds=STANDSTILL - LOOK) == (True, 0)
    assert await member(Cluster(), connect, stored=0, seconds=STANDSTILL + 2 * LOOK) == (False, 0)
    there = await member(Cluster(), connect, stored=0, seconds=STANDSTILL + AWAY + 2 * LOOK)
    assert there == (True, 1)


async def test_a_group_that_has_handled_everything_is_left_alone(
    cluster: Cluster, connect: Connect
) -> None:
    assert await member(cluster, connect, stored=2, seconds=WATCHED) == (True, 0)


async def test_brokers_that_notice_it_themselves_are_left_alone(connect: Connect) -> None:
    assert await member(Cluster(version="4.1.0"), connect, stored=0, seconds=WATCHED) == (True, 0)
