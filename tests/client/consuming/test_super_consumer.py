"""The partitions of a super stream are served in turn, and may come and go."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import anyio
import pytest

from flowstream.client import AutoTracking
from flowstream.client.consuming.super_consumer import AT_ONCE, side_by_side
from flowstream.errors import ConfigurationError, StreamDoesNotExist
from flowstream.protocol import Subscribe
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_partitions_are_taken_in_turn(invoices: Cluster, connect: Connect) -> None:
    for name in invoices.super_streams["invoices"]:
        invoices.add(name, *[[b"%d" % n] for n in range(20)])
    seen: dict[str, list[int]] = {}
    order: list[str] = []
    async with connect(invoices) as env, env.super_stream_consumer("invoices") as consumer:
        await anyio.sleep(1)
        async for delivery in consumer:
            seen.setdefault(delivery.stream, []).extend(map(int, delivery.bodies))
            order.append(delivery.stream)
            if len(order) == 60:
                break
        assert consumer.active == consumer.partitions
        assert set(consumer.statistics()) == set(consumer.partitions)
    assert order[:6] == 2 * ["invoices-0", "invoices-1", "invoices-2"]
    assert all(bodies == list(range(20)) for bodies in seen.values())
    assert invoices.node.live() == []
    with pytest.raises(StopAsyncIteration):
        await anext(consumer)


async def test_message_by_message_with_tracking(invoices: Cluster, connect: Connect) -> None:
    for name in invoices.super_streams["invoices"]:
        invoices.add(name, [b"0", b"1"])
    options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking()}
    async with connect(invoices) as env:
        async with env.super_stream_consumer("invoices", **options) as consumer:
            messages = consumer.messages()
            seen = [await anext(messages) for _ in range(6)]
        assert sorted({message.stream for message in seen}) == consumer.partitions
        assert all(log.offsets["me"] == 1 for log in invoices.streams.values())
        manual = env.super_stream_consumer("invoices", reference="me", tracking="manual")
        async with manual as consumer:
            await consumer.store_offset("invoices-1", 0)
        assert invoices.streams["invoices-1"].offsets["me"] == 0


async def test_what_is_left_of_a_chunk_comes_next_and_is_not_stored(
    invoices: Cluster, connect: Connect
) -> None:
    invoices.add("invoices-0", [b"0", b"1", b"2"])
    options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking()}
    async with connect(invoices) as env:
        async with env.super_stream_consumer("invoices", **options) as consumer:
            assert (await anext(consumer.messages())).body == b"0"
        assert invoices.streams["invoices-0"].offsets["me"] == 0
        async with env.super_stream_consumer("invoices", **options) as consumer:
            assert (await anext(consumer.messages())).body == b"1"
            assert (await anext(consumer)).bodies == [b"2"]
        assert invoices.streams["invoices-0"].offsets["me"] == 2


async def test_partitions_that_come_are_read_from_their_beginning(
    invoices: Cluster, connect: Connect
) -> None:
    async with (
        connect(invoices) as env,
        env.super_stream_consumer("invoices", offset="next", refresh=10) as consumer,
        env.super_stream_publisher("invoices", key=bytes.decode, refresh=10) as publisher,
    ):
        invoices.add("invoices-3", [b"before it was known"])
        invoices.super_streams["invoices"].append("invoices-3")
        delivery = await anext(consumer)
        assert (delivery.stream, delivery.bodies) == ("invoices-3", [b"before it was known"])
        await anyio.sleep(10)
        assert len(publisher.partitions) == 4


async def test_partitions_that_go_are_let_go(invoices: Cluster, connect: Connect) -> None:
    async with (
        connect(invoices, missing_timeout=5) as env,
        env.super_stream_consumer("invoices", refresh=1000) as consumer,
    ):
        gone = invoices.super_streams["invoices"].pop()
        del invoices.streams[gone]
        invoices.node.forget(gone)
        with anyio.move_on_after(100):
            await anext(consumer)
        assert consumer.active == ["invoices-0", "invoices-1"]
        del invoices.streams["invoices-1"]
        invoices.node.forget("invoices-1")
        with pytest.raises(StreamDoesNotExist):
            await anext(consumer)


MEMBER: dict[str, Any] = {"reference": "me", "single_active": True}


async def test_a_member_of_a_group_reads_while_its_other_partitions_are_opened(
    invoices: Cluster, connect: Connect
) -> None:
    for name in invoices.super_streams["invoices"]:
        invoices.add(name, [b"0"])
    async with connect(invoices) as env, env.super_stream_consumer("invoices", **MEMBER) as member:
        assert [*member.positions] == ["invoices-0"]
        assert (await anext(member)).bodies == [b"0"]
        await anyio.sleep(1)
        assert [*member.positions] == member.partitions


@pytest.mark.medium
async def test_partitions_are_opened_side_by_side(cluster: Cluster, connect: Connect) -> None:
    """One after the other would take a second for each."""
    names = cluster.super_streams["invoices"] = [f"invoices-{n}" for n in range(2 * AT_ONCE)]
    for name in names:
        cluster.add(name, [b"0"])

    async with connect(cluster) as env:
        locate = env._manager.locate

        async def slowly(stream: str) -> Any:
            await anyio.sleep(1)
            return await locate(stream)

        env._manager.locate = slowly  # type: ignore[method-assign]
        began = anyio.current_time()
        async with env.super_stream_consumer("invoices") as consumer:
            assert anyio.current_time() - began < 4
            assert [*consumer.positions] == consumer.partitions == names


async def test_at_most_so_many_are_opened_at_the_same_time() -> None:
    running, most, begun = 0, 0, []

    async def run(number: int) -> None:
        nonlocal running, most
        begun.append(number)
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1

    await side_by_side(run, range(100))
    assert most == AT_ONCE
    assert sorted(begun) == [*range(100)]


async def test_a_partition_that_cannot_be_opened_ends_a_member(
    invoices: Cluster, connect: Connect
) -> None:
    del invoices.streams["invoices-2"]
    async with (
        connect(invoices, missing_timeout=5) as env,
        env.super_stream_consumer("invoices", **MEMBER) as member,
    ):
        with pytest.raises(StreamDoesNotExist), anyio.fail_after(60):
            await anext(member)
    assert invoices.node.live() == []


async def test_a_member_that_leaves_while_it_opens_leaves_nothing_behind(
    invoices: Cluster, connect: Connect
) -> None:
    async with connect(invoices) as env:
        async with env.super_stream_consumer("invoices", **MEMBER) as member:
            pass
        assert len(member.positions) == 0
        await anyio.sleep(1)
        assert invoices.node.live("consuming") == []


async def test_a_member_subscribes_again_to_every_partition(
    invoices: Cluster, connect: Connect
) -> None:
    for name in invoices.super_streams["invoices"]:
        invoices.add(name, [b"0"])
    async with (
        connect(invoices) as env,
        env.super_stream_consumer("invoices", reference="me", single_active=True) as consumer,
    ):
        await anyio.sleep(1)
        await consumer.subscribe_again()
        await anyio.sleep(1)
        assert consumer.active == consumer.partitions
        subscribed = Counter(command.stream for command in invoices.node.received(Subscribe))
        assert subscribed == dict.fromkeys(consumer.partitions, 2)


async def test_an_offset_is_stored_for_a_partition_that_it_has(
    invoices: Cluster, connect: Connect
) -> None:
    async with connect(invoices) as env:
        async with env.super_stream_consumer(
            "invoices", reference="r", tracking="manual"
        ) as consumer:
            await consumer.store_offset("invoices-0", 1)
            for wrong in ("x", 1.5, None, -2):
                with pytest.raises(ConfigurationError, match=r"offset=.*: expected 0 to 2"):
                    await consumer.store_offset("invoices-0", cast(Any, wrong))
            with pytest.raises(ConfigurationError, match=r"stream='nope': .* it has invoices-0, "):
                await consumer.store_offset("nope", 1)
        with pytest.raises(ConfigurationError, match="has no such partition open; it has none"):
            await consumer.store_offset("invoices-0", 1)
