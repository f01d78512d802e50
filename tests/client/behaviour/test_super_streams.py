"""Super streams and single active consumers: routing, merging, hand-over, changing partitions."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import AutoTracking, OffsetSpec, State, hash_index
from flowstream.errors import ConfigurationError, MessageTooLarge, PublishFailed, StreamDoesNotExist
from flowstream.protocol import (
    Code,
    ConsumerUpdateResponse,
    Deliver,
    QueryOffset,
    StoreOffset,
    Subscribe,
    build_chunk,
    simple_entry,
)
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio

TEN = [b"%d" % number for number in range(10)]


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


@pytest.fixture
def invoices(cluster: Cluster) -> Cluster:
    cluster.super_streams["invoices"] = [f"invoices-{n}" for n in range(3)]
    for name in cluster.super_streams["invoices"]:
        cluster.add(name)
    return cluster


def stored(cluster: Cluster, stream: str) -> list[bytes]:
    return [entry[4:] for chunk in cluster.streams[stream].chunks for entry in chunk[2]]


async def test_messages_go_where_their_keys_hash_to(invoices: Cluster, connect: Connect) -> None:
    bodies = [b"hello%d" % n for n in range(1, 11)]
    async with (
        connect(invoices) as env,
        env.super_stream_publisher("invoices", key=bytes.decode) as publisher,
    ):
        await publisher.send_many(bodies[:4])
        await publisher.publish_many(bodies[4:8])
        await publisher.send(bodies[8])
        await publisher.publish(b"by its key", key="hello10")
        await publisher.flush()
        assert publisher.unconfirmed == 0
        assert publisher.partitions == ["invoices-0", "invoices-1", "invoices-2"]
        assert sorted(publisher.statistics()) == publisher.partitions
    assert stored(invoices, "invoices-0") == [b"hello2", b"hello5", b"hello7", b"hello9"]
    assert stored(invoices, "invoices-1") == [b"hello1", b"hello3", b"hello8"]
    assert stored(invoices, "invoices-2") == [b"hello4", b"hello6", b"by its key"]
    assert invoices.node.live() == []


async def test_publishing_ids_are_kept_and_what_is_too_large_is_refused_before_anything_is_sent(
    invoices: Cluster, connect: Connect
) -> None:
    from flowstream.protocol import Publish

    async with (
        connect(invoices) as env,
        env.super_stream_publisher("invoices", reference="once") as publisher,
    ):
        keys = [f"hello{n}" for n in range(1, 11)]
        await publisher.publish_many([b"x"] * 10, keys=keys, publishing_ids=range(5, 15))
        with pytest.raises(MessageTooLarge):
            await publisher.publish_many([b"y", b"y" * (2 << 20)], keys=keys[:2])
        with pytest.raises(ConfigurationError, match="publishing_ids has 1 items for 2"):
            await publisher.send_many([b"x", b"y"], keys=keys[:2], publishing_ids=[1])
        assert await publisher.partitions_of("hello1") == ("invoices-1",)
        assert (publisher.unconfirmed, publisher.deduplicated) == (0, 0)
    sent = list(invoices.node.received(Publish))
    assert sorted(n for command in sent for n in command.messages.ids) == [*range(5, 15)]
    assert not any(b"y" in stored(invoices, name) for name in invoices.super_streams["invoices"])


async def test_routing_by_key_asks_the_broker_once(invoices: Cluster, connect: Connect) -> None:
    from flowstream.protocol import Route

    async with (
        connect(invoices) as env,
        env.super_stream_publisher("invoices", routing="key") as publisher,
    ):
        await publisher.send_many([b"a", b"b", b"c"], keys=["1", "2", "1"])
        with pytest.raises(PublishFailed, match="bound with the key '7'"):
            await publisher.send(b"x", key="7")
        with pytest.raises(ConfigurationError, match="key="):
            await publisher.send(b"x")
        with pytest.raises(ConfigurationError, match="1 items for 2"):
            await publisher.send_many([b"x", b"y"], keys=["1"])
    assert stored(invoices, "invoices-1") == [b"a", b"c"]
    assert stored(invoices, "invoices-2") == [b"b"]
    assert [command.routing_key for command in invoices.node.received(Route)] == ["1", "2", "7"]
    with pytest.raises(ConfigurationError, match="routing"):
        env.super_stream_publisher("invoices", routing="random")  # type: ignore[arg-type]


async def test_the_first_failure_of_any_partition_is_raised(
    invoices: Cluster, connect: Connect
) -> None:
    from flowstream.protocol import Publish, PublishError

    def refuse(session: Session, command: Any) -> bool:
        errors = tuple((n, Code.ACCESS_REFUSED) for n in command.messages.ids)
        session.send(PublishError(command.publisher_id, errors))
        return True

    invoices.node.scripts[Publish] = refuse
    async with connect(invoices) as env:
        with pytest.raises(PublishFailed, match="no permission"):
            async with env.super_stream_publisher("invoices", key=bytes.decode) as publisher:
                await publisher.send_many([b"hello1", b"hello2"])
        with pytest.raises(PublishFailed, match="closed"):
            await publisher.send(b"hello4")
        assert env.statistics()["publishers"] == 0


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


async def test_a_partition_that_comes_back_is_published_to_again(
    invoices: Cluster, connect: Connect
) -> None:
    async with (
        connect(invoices, missing_timeout=5) as env,
        env.super_stream_publisher("invoices", refresh=1000) as publisher,
    ):
        key = next(str(n) for n in range(100) if hash_index(str(n), 3) == 1)
        await publisher.publish(b"before", key=key)
        del invoices.streams["invoices-1"]
        invoices.node.forget("invoices-1")
        await publisher.send(b"lost", key=key)
        await anyio.sleep(20)
        with pytest.raises(PublishFailed, match=r"was not confirmed: .* does not exist"):
            await publisher.publish(b"told of the one before", key=key)
        with pytest.raises(StreamDoesNotExist):
            await publisher.publish(b"not there yet", key=key)
        log = invoices.add("invoices-1")
        await publisher.publish(b"after", key=key)
        assert [entries for _, _, entries, _ in log.chunks] == [[simple_entry(b"after")]]


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


async def test_an_unknown_super_stream(cluster: Cluster, connect: Connect) -> None:
    async with connect(cluster) as env:
        for thing in (env.super_stream_publisher("x"), env.super_stream_consumer("x")):
            with pytest.raises(StreamDoesNotExist) as caught:
                await thing.__aenter__()
            assert caught.value.stream == "x"
        with pytest.raises(ConfigurationError, match="refresh"):
            env.super_stream_publisher("x", refresh=0)


# --- single active consumers --------------------------------------------------------------------


def answers(cluster: Cluster) -> list[OffsetSpec]:
    return [command.offset for command in cluster.node.received(ConsumerUpdateResponse)]


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
