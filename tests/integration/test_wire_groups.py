"""Single active consumers on the wire, the same on every broker: who is asked what, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from flowstream.protocol import (
    Chunk,
    ConsumerUpdate,
    ConsumerUpdateResponse,
    CreateStream,
    CreateSuperStream,
    DeclarePublisher,
    DeleteSuperStream,
    Deliver,
    OffsetSpec,
    Subscribe,
    Unsubscribe,
)
from tests.broker.raw import Raw, logged_in
from tests.brokers.running import Broker
from tests.integration.test_wire import nothing_comes, publish

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _knows_groups(broker: Broker) -> None:
    if broker.version < (3, 13):
        pytest.skip("single active consumers came with 3.11, CreateSuperStream with 3.13")


@asynccontextmanager
async def members(broker: Broker, count: int) -> AsyncIterator[list[Raw]]:
    async with AsyncExitStack() as exits:
        yield [await exits.enter_async_context(logged_in(broker.url)) for _ in range(count)]


async def join(raw: Raw, stream: str, **more: str) -> None:
    properties = {"single-active-consumer": "true", "name": "group"}
    properties |= {name.replace("_", "-"): value for name, value in more.items()}
    await raw.ok(Subscribe(9, 0, stream, OffsetSpec.first(), 10, properties))


async def told(raw: Raw, active: bool) -> ConsumerUpdate:
    update = await raw.expect(ConsumerUpdate)
    assert (update.active, update.subscription_id) == (active, 0)
    return update


async def answer(raw: Raw, update: ConsumerUpdate, spec: OffsetSpec) -> None:
    await raw.send(ConsumerUpdateResponse(update.correlation_id, 1, spec))


async def first_offset(raw: Raw) -> int:
    return Chunk((await raw.expect(Deliver)).chunk).offset


async def test_one_is_active_until_it_goes(broker: Broker, stream_name: str) -> None:
    async with members(broker, 3) as (one, two, three):
        await one.ok(CreateStream(7, stream_name, {}))
        await one.ok(DeclarePublisher(8, 0, None, stream_name))
        for each in range(4):
            await publish(one, each, b"x")
        await join(one, stream_name)
        update = await told(one, active=True)
        assert await nothing_comes(one), "nothing is delivered before the answer"
        await answer(one, update, OffsetSpec.offset(2))
        assert await first_offset(one) == 2
        assert await first_offset(one) == 3
        await join(two, stream_name)
        await join(three, stream_name)
        assert await nothing_comes(two)
        await one.ok(Unsubscribe(10, 0))
        update = await told(two, active=True)
        await answer(two, update, OffsetSpec.none())
        assert await first_offset(two) == 0, "no choice: where the subscription began"
        await two.stream.aclose()
        update = await told(three, active=True)
        await answer(three, update, OffsetSpec.next())
        assert await nothing_comes(three)


async def test_groups_of_other_names_do_not_meet(broker: Broker, stream_name: str) -> None:
    async with members(broker, 2) as (one, two):
        await one.ok(CreateStream(7, stream_name, {}))
        await join(one, stream_name)
        await told(one, active=True)
        await join(two, stream_name, name="another group")
        await told(two, active=True)
        assert await nothing_comes(one)


async def test_members_spread_over_partitions(broker: Broker, stream_name: str) -> None:
    """The active member is the partition's index modulo the members; it is handed over."""
    partitions = (f"{stream_name}-0", f"{stream_name}-1")
    async with members(broker, 2) as (one, two):
        await one.ok(CreateSuperStream(7, stream_name, partitions, ("0", "1"), {}))
        await one.ok(DeclarePublisher(8, 0, None, partitions[1]))
        await publish(one, 0, b"x")
        await join(one, partitions[1], super_stream=stream_name)
        update = await told(one, active=True)
        await answer(one, update, OffsetSpec.first())
        assert await first_offset(one) == 0
        await join(two, partitions[1], super_stream=stream_name)
        update = await told(one, active=False)
        assert await nothing_comes(two), "the successor waits for the answer of the former"
        await answer(one, update, OffsetSpec.none())
        update = await told(two, active=True)
        await publish(one, 1, b"y")
        await answer(two, update, OffsetSpec.offset(1))
        assert await first_offset(two) == 1
        assert await nothing_comes(one)
        await two.stream.aclose()
        await told(one, active=True)
        await one.ok(DeleteSuperStream(11, stream_name))


async def test_who_goes_while_it_is_asked_is_replaced(broker: Broker, stream_name: str) -> None:
    partitions = (f"{stream_name}-0", f"{stream_name}-1")
    async with members(broker, 3) as (admin, one, two):
        await admin.ok(CreateSuperStream(7, stream_name, partitions, ("0", "1"), {}))
        await join(one, partitions[1], super_stream=stream_name)
        await answer(one, await told(one, active=True), OffsetSpec.first())
        await join(two, partitions[1], super_stream=stream_name)
        await told(one, active=False)
        await one.stream.aclose()
        await told(two, active=True)
        with anyio.fail_after(10):
            await admin.ok(DeleteSuperStream(8, stream_name))
