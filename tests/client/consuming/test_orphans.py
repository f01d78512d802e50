"""A partition that the broker has left without a reader is assigned again."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client.consuming import orphans
from flowstream.client.consuming.orphans import (
    AWAY,
    LOOK,
    MOST_DOUBLED,
    STANDSTILL,
    TURN,
    WATCHED,
    Standstill,
)
from flowstream.protocol import Subscribe, simple_entry
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "wall_clock", lambda: anyio.current_time())


def looks(seconds: float, *, leaves: bool = False, **what: Any) -> list[float]:
    """When it says that this member leaves, if the same is seen every LOOK seconds."""
    seen, values, found = Standstill(), {"stored": 5, "end": 9} | what, []
    for now in [LOOK * n for n in range(int(seconds / LOOK))]:
        if seen.looked(now=now, clock=now, **values):
            found.append(now)
            if leaves:
                seen.leave()
                seen.come_back(0)
    return found


def test_where_the_stored_offset_stays_the_member_leaves_in_the_next_turn() -> None:
    assert STANDSTILL < TURN
    assert looks(4 * TURN) == [TURN, 2 * TURN, 3 * TURN]


def test_members_leave_in_the_same_turns_however_often_each_has_tried() -> None:
    long = TURN * 2**MOST_DOUBLED
    expected = [TURN, 2 * TURN, 4 * TURN, long, 2 * long, 3 * long]
    assert looks(3.5 * long, leaves=True) == expected


@pytest.mark.parametrize("what", [{"stored": None}, {"end": None}, {"stored": 9}, {"stored": 12}])
def test_a_partition_without_unhandled_messages_is_left_alone(what: dict[str, Any]) -> None:
    assert looks(2000, **what) == []


def test_a_stored_offset_that_moves_is_a_reader() -> None:
    seen = Standstill()
    for stored in range(100):
        assert not seen.looked(stored, 1000, stored * 2 * STANDSTILL, stored * 2 * TURN)


def test_the_standstill_is_the_same_one_until_the_stored_offset_moves() -> None:
    seen = Standstill()
    assert not seen.looked(5, 9, 0, 0)
    assert seen.looked(5, 9, TURN, TURN)
    seen.leave()
    assert seen.away
    seen.come_back(1)
    assert not seen.looked(5, 9, 40, 40)
    assert (seen.away, seen.left, seen.tries) == (False, 5, 1)
    assert not seen.looked(6, 9, 43, 43)
    assert (seen.left, seen.tries) == (None, 0)


def test_a_loss_is_noticed_once_and_leaving_is_none() -> None:
    seen = Standstill()
    assert [seen.lost(losses) for losses in (0, 0, 1, 1)] == [True, False, True, False]
    seen.come_back(2)
    assert not seen.lost(2)


async def member(
    cluster: Cluster,
    connect: Connect,
    *,
    stored: int,
    seconds: float,
    lose: bool = True,
    later: bool = False,
) -> tuple[bool, int]:
    """Of a standby that has started, or has lost its connection: whether it is in the group, and
    how often it joined again. The last message may come when that is long ago."""
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
        if lose:
            cluster.node.live("consuming")[0].drop()
            await anyio.sleep(1)
        cluster.node.live("consuming")[0].promote(0, active=False)
        joined = joins()
        if later:
            await anyio.sleep(orphans.WATCHED + 2 * LOOK)
            log.append([simple_entry(b"3")], 1, 1)
        await anyio.sleep(seconds)
        return bool(cluster.node.live("consuming")), joins() - joined


@pytest.mark.medium
@pytest.mark.parametrize("lose", [True, False])
async def test_a_member_leaves_an_orphaned_partition_and_comes_back(
    cluster: Cluster, connect: Connect, lose: bool
) -> None:
    """A new process, too, which has lost nothing: as long as it stays, the group is not empty."""

    async def after(seconds: float, cluster: Cluster) -> tuple[bool, int]:
        return await member(cluster, connect, stored=0, seconds=seconds, lose=lose)

    assert await after(STANDSTILL - LOOK, cluster) == (True, 0)
    assert await after(STANDSTILL + TURN, Cluster()) in ((False, 0), (True, 1))
    assert await after(STANDSTILL + TURN + AWAY + 2 * LOOK, Cluster()) == (True, 1)


async def test_at_other_times_another_member_may_be_slow_or_paused(
    cluster: Cluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "WATCHED", 2 * TURN)
    found = await member(cluster, connect, stored=2, seconds=3 * TURN, later=True)
    assert found == (True, 0)


async def test_a_group_that_has_handled_everything_is_left_alone(
    cluster: Cluster, connect: Connect
) -> None:
    assert await member(cluster, connect, stored=2, seconds=WATCHED) == (True, 0)


async def test_brokers_that_notice_it_themselves_are_left_alone(connect: Connect) -> None:
    assert await member(Cluster(version="4.1.0"), connect, stored=0, seconds=WATCHED) == (True, 0)
