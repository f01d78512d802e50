"""The partitions of a super stream are served in turn, and may come and go."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import AutoTracking
from flowstream.errors import StreamDoesNotExist
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
