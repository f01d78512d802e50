"""Single active consumers: promotion, demotion, and offsets handed over in between."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import AutoTracking, OffsetSpec, State
from flowstream.errors import ConfigurationError
from flowstream.protocol import (
    ConsumerUpdateResponse,
    Deliver,
    QueryOffset,
    StoreOffset,
    Subscribe,
    Unsubscribe,
    build_chunk,
    simple_entry,
)
from tests.client.bodies import TEN
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def answers(cluster: Cluster) -> list[OffsetSpec]:
    return [command.offset for command in cluster.node.received(ConsumerUpdateResponse)]


def unsubscribed(cluster: Cluster) -> list[int]:
    """Subscriptions that were ended, without those that look at one chunk."""
    ended = [command.subscription_id for command in cluster.node.received(Unsubscribe)]
    return [number for number in ended if number == 0]


async def test_pitfall_1_the_active_one_begins_behind_the_stored_offset(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 1, again: the head of the chunk is dropped after a ConsumerUpdate answer too."""
    cluster.add("s", [b"%d" % n for n in range(10)]).offsets["me"] = 6
    options: dict[str, Any] = {"reference": "me", "single_active": True, "tracking": AutoTracking()}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        assert (await anext(consumer)).bodies == [b"7", b"8", b"9"]
        assert consumer.active
        assert answers(cluster) == [OffsetSpec.offset(7)]
        [subscribe] = cluster.node.received(Subscribe)
        assert subscribe.properties == {"name": "me", "single-active-consumer": "true"}


async def test_a_demotion_is_answered_when_what_was_given_is_done_and_stored(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0", b"1"], [b"2"], [b"3"])
    options: dict[str, Any] = {"reference": "me", "single_active": True, "tracking": AutoTracking()}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        await anext(consumer)
        [session] = cluster.node.live("consuming")
        session.promote(0, active=False)
        await anyio.sleep(5)
        assert not consumer.active
        assert len(answers(cluster)) == 1
        with anyio.move_on_after(5):
            await anext(consumer)
        assert answers(cluster)[-1] == OffsetSpec.none()
        assert cluster.streams["s"].offsets["me"] == 1
        order = [type(c) for s in cluster.node.sessions for c in s.received]
        assert StoreOffset in order
        session.subscriptions[0].waiting = True
        session.promote(0, active=True)
        assert (await anext(consumer)).bodies == [b"2"]
        assert answers(cluster)[-1] == OffsetSpec.offset(2)


async def test_a_demotion_waits_no_longer_than_its_timeout(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0", b"1"], [b"2"])
    options: dict[str, Any] = {"reference": "me", "single_active": True, "hand_over_timeout": 20}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        await anext(consumer)
        cluster.node.live("consuming")[0].promote(0, active=False)
        await anyio.sleep(19)
        assert len(answers(cluster)) == 1
        await anyio.sleep(2)
        assert len(answers(cluster)) == 2


async def test_hooks_decide_and_are_called_in_turn(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", [b"0", b"1", b"2"], [b"3"])
    calls: list[str] = []

    async def on_active(stream: str) -> OffsetSpec:
        calls.append(f"active {stream}")
        await anyio.sleep(1)
        return OffsetSpec.offset(2)

    async def on_inactive(stream: str) -> None:
        calls.append(f"inactive {stream}")
        await anyio.sleep(3)
        calls.append("drained")

    options: dict[str, Any] = {"reference": "me", "single_active": True}
    async with connect(cluster) as env:
        consumer = env.consumer("s", on_active=on_active, on_inactive=on_inactive, **options)
        async with consumer:
            assert (await anext(consumer)).bodies == [b"2"]
            cluster.node.live("consuming")[0].drop()
            await consumer.wait_for(State.RECOVERING)
            assert (await anext(consumer)).bodies == [b"2"]
    assert calls == ["active s", "inactive s", "drained", "active s"]


async def test_a_promotion_goes_on_over_lost_connections(
    cluster: Cluster, connect: Connect
) -> None:
    """The stored offset is asked for on another connection, which may be lost just then."""
    log = cluster.add("s", TEN)
    log.offsets["me"] = 4
    lost = 0

    def drop(session: Session, command: QueryOffset) -> bool:
        nonlocal lost
        lost += 1
        if lost < 6:
            session.drop()
        return lost < 6

    cluster.node.scripts[QueryOffset] = drop
    options: dict[str, Any] = {"reference": "me", "single_active": True, "tracking": AutoTracking()}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        assert (await anext(consumer)).offset == 5
        assert lost >= 6
        assert consumer.active
        del cluster.node.scripts[QueryOffset]


async def test_a_promotion_by_a_connection_that_is_lost_meanwhile_is_none(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", TEN)
    told: list[str] = []

    async def on_active(stream: str) -> OffsetSpec:
        told.append("active")
        if len(told) == 1:
            for session in cluster.node.live("consuming"):
                session.drop()
            await anyio.sleep(5)
        return OffsetSpec.offset(3)

    async def on_inactive(stream: str) -> None:
        told.append("inactive")

    options: dict[str, Any] = {"reference": "me", "single_active": True}
    async with (
        connect(cluster) as env,
        env.consumer("s", on_active=on_active, on_inactive=on_inactive, **options) as consumer,
    ):
        assert (await anext(consumer)).offset == 3
        assert told == ["active", "inactive", "active"]


async def test_a_hand_over_that_cannot_be_verified_is_told_and_made(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """What was not stored is read again by the successor; the consumer stands by."""
    cluster.add("s", TEN)
    cluster.node.scripts[StoreOffset] = lambda session, command: True
    options: dict[str, Any] = {"reference": "me", "single_active": True, "tracking": AutoTracking()}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        await anext(consumer)
        await consumer.done()
        [session] = cluster.node.live("consuming")
        number = session.promote(0, active=False)
        await anyio.sleep(20)
        answers = [c for c in session.received if isinstance(c, ConsumerUpdateResponse)]
        assert answers[-1].correlation_id == number
        assert (consumer.active, consumer.state) == (False, State.OPEN)
    assert "was not stored (found None)" in caplog.text


async def test_a_consumer_that_subscribes_again_hands_over_and_stays_open(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0", b"1"], [b"2"])
    options: dict[str, Any] = {"reference": "me", "single_active": True, "tracking": AutoTracking()}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        await anext(consumer)
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.subscribe_again)
            await anyio.sleep(5)
            assert not unsubscribed(cluster)  # the application is not done with it
            await consumer.done()
        assert cluster.streams["s"].offsets["me"] == 1
        assert unsubscribed(cluster) == [0]
        assert (consumer.state, consumer.losses) == (State.OPEN, 0)
        assert (await anext(consumer)).bodies == [b"2"]
        assert answers(cluster) == [OffsetSpec.offset(0), OffsetSpec.offset(2)]


async def test_a_consumer_that_is_about_to_unsubscribe_does_not_become_active(
    cluster: Cluster, connect: Connect
) -> None:
    """A demotion is answered even then, because the broker waits for it before it goes on."""
    cluster.add("s", [b"0", b"1"], [b"2"])
    told: list[str] = []

    async def on_active(stream: str) -> OffsetSpec:
        told.append("active")
        return OffsetSpec.offset(0)

    async def on_inactive(stream: str) -> None:
        told.append("inactive")
        session.promote(0, active=False)
        session.promote(0, active=True)
        await anyio.sleep(1)

    options: dict[str, Any] = {"reference": "me", "single_active": True}
    async with (
        connect(cluster) as env,
        env.consumer("s", on_active=on_active, on_inactive=on_inactive, **options) as consumer,
    ):
        await anyio.sleep(1)
        [session] = cluster.node.live("consuming")
        await consumer.subscribe_again()
        await anyio.sleep(1)
        assert told == ["active", "inactive", "active"]
        begin = OffsetSpec.offset(0)
        assert answers(cluster) == [begin, OffsetSpec.none(), begin]


async def test_a_consumer_that_closes_does_not_subscribe_again(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0"])

    async def on_inactive(stream: str) -> None:
        await anyio.sleep(3600)

    options: dict[str, Any] = {"reference": "me", "single_active": True}
    async with connect(cluster) as env, anyio.create_task_group() as group:
        async with env.consumer("s", on_inactive=on_inactive, **options) as consumer:
            await anyio.sleep(1)
            group.start_soon(consumer.subscribe_again)
            await anyio.sleep(1)
        assert consumer.state is State.CLOSED
    assert len(cluster.node.received(Subscribe)) == 1


async def test_a_hook_that_fails_fails_the_consumer(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", [b"0"])

    async def on_active(stream: str) -> OffsetSpec:
        raise KeyError("the warehouse is closed")

    options: dict[str, Any] = {"reference": "me", "single_active": True, "on_active": on_active}
    async with connect(cluster) as env:
        with pytest.raises(KeyError, match="warehouse"):
            async with env.consumer("s", **options) as consumer:
                await anext(consumer)
        assert env.statistics()["subscriptions"] == 0
        assert answers(cluster) == []


@pytest.mark.parametrize("hook", ["on_active", "on_inactive"])
async def test_a_hook_that_is_no_async_function_is_named(
    cluster: Cluster, connect: Connect, hook: str
) -> None:
    cluster.add("s", [b"0"])
    options: dict[str, Any] = {"reference": "me", "single_active": True}
    options[hook] = lambda stream: OffsetSpec.first()
    says = f"{hook}=<function .*: expected an async function, not one that .* OffsetSpec"

    async def hand_over(env: Any) -> None:
        async with env.consumer("s", **options) as consumer:
            await anext(consumer)
            cluster.node.live("consuming")[0].promote(0, active=False)
            await anext(consumer)

    async with connect(cluster) as env:
        with pytest.raises(ConfigurationError, match=says):
            await hand_over(env)


async def test_deliveries_of_a_consumer_that_stands_by_are_not_handed_over(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", [b"0"])
    options: dict[str, Any] = {"reference": "me", "single_active": True}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        await anext(consumer)
        [session] = cluster.node.live("consuming")
        session.promote(0, active=False)
        with anyio.move_on_after(1):
            await anext(consumer)
        chunk = build_chunk([simple_entry(b"1")], records=1, offset=1, timestamp=1)
        session.send(Deliver(0, chunk, 1))
        with anyio.move_on_after(1) as waiting:
            await anext(consumer)
        assert waiting.cancelled_caught


async def test_the_group_of_a_super_stream_tells_the_broker_which(
    invoices: Cluster, connect: Connect
) -> None:
    async with (
        connect(invoices) as env,
        env.super_stream_consumer("invoices", reference="me", single_active=True) as consumer,
    ):
        await anyio.sleep(1)
        assert consumer.active == consumer.partitions
        assert {c.properties["super-stream"] for c in invoices.node.received(Subscribe)} == {
            "invoices"
        }


async def test_only_a_member_of_a_group_subscribes_again(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.consumer("s") as consumer:
        with pytest.raises(ConfigurationError, match="needs a consumer with single_active=True"):
            await consumer.subscribe_again()
