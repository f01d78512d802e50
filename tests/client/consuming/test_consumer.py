"""Consuming: the exact first message, credit as demand, resumption, damage, and the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowstream.client import AutoTracking, CreditOnArrival, CreditWhenDone, Delivery, State
from flowstream.client.consuming.tracking import KEPT, KEPT_SUFFIX
from flowstream.errors import (
    ChecksumMismatch,
    CommitNotVerified,
    ConfigurationError,
    NotSupported,
    ProtocolError,
    StreamDoesNotExist,
    StreamNotAvailable,
)
from flowstream.protocol import (
    Close,
    Code,
    Credit,
    CreditError,
    Deliver,
    Key,
    OffsetSpec,
    QueryOffset,
    QueryOffsetResponse,
    Response,
    StoreOffset,
    Subscribe,
    Unsubscribe,
    build_chunk,
    simple_entry,
    sub_entry,
    sub_entry_bytes,
)
from flowstream.telemetry import ChunkReceived, StateChanged
from tests.client.conftest import Connect, Recorder
from tests.client.scripted import Cluster, Node, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def numbers(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def chunks(count: int, size: int = 10) -> list[list[bytes]]:
    return [numbers(size, size * i) for i in range(count)]


async def read(consumer: Any, messages: int) -> list[bytes]:
    """So many bodies, or fewer when nothing comes for a (virtual) minute."""
    bodies: list[bytes] = []
    with anyio.move_on_after(60):
        while len(bodies) < messages:
            delivery = await anext(consumer)
            assert [int(body) for body in delivery.bodies] == list(delivery.offsets)
            bodies += delivery.bodies
    return bodies


async def test_every_message_once_and_in_order(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(30))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 300) == numbers(300)
        assert consumer.position == 300
        cluster.streams["s"].append([simple_entry(b"300")], 1, cluster.node.tick())
        cluster.node.deliver("s")
        assert await read(consumer, 1) == [b"300"]
    assert cluster.node.live() == []


async def test_a_delivery_has_what_a_program_needs(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(2))
    async with connect(cluster) as env, env.consumer("s", offset=3) as consumer:
        delivery = await anext(consumer)
        assert isinstance(delivery, Delivery)
        assert (delivery.stream, delivery.offset, delivery.chunk_id) == ("s", 3, 0)
        assert (len(delivery), delivery.bodies) == (7, numbers(7, 3))
        assert delivery.offsets == range(3, 10)
        assert (delivery.committed_chunk_id, delivery.bytes) == (10, 50)
        assert delivery.timestamp == 1_700_000_000_001


@pytest.mark.parametrize(
    ("offset", "first"),
    [
        ("first", 0),
        ("last", 20),
        ("next", 30),
        (0, 0),
        (17, 17),
        (29, 29),
        (30, 30),
        (OffsetSpec.offset(12), 12),
    ],
)
async def test_pitfall_1_the_first_message_is_exactly_the_asked_one(
    cluster: Cluster, connect: Connect, offset: Any, first: int
) -> None:
    """Pitfall 1: drop offsets below the asked one after Subscribe(offset)."""
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env, env.consumer("s", offset=offset) as consumer:
        cluster.streams["s"].append(
            [simple_entry(body) for body in numbers(5, 30)], 5, cluster.node.tick()
        )
        cluster.node.deliver("s")
        assert await read(consumer, 35 - first) == numbers(35 - first, first)


async def test_a_broker_that_stops_sending_is_asked_again(
    cluster: Cluster, connect: Connect
) -> None:
    """As RabbitMQ does if retention removes the segment that follows the one it reads."""
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 20) == numbers(10)  # it waits for more
        subscribed = len(cluster.node.received(Subscribe))
        for first in (10, 15):
            entries = [simple_entry(body) for body in numbers(5, first)]
            cluster.streams["s"].append(entries, 5, cluster.node.tick())
        assert await read(consumer, 10) == numbers(10, 10)
        assert len(cluster.node.received(Subscribe)) > subscribed
        assert consumer.position == 20


@pytest.mark.parametrize("offset", ["next", "last"])
async def test_next_and_last_lose_nothing_when_the_connection_ends_before_the_first_chunk(
    cluster: Cluster, connect: Connect, offset: str
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.consumer("s", offset=offset) as consumer:
        [session] = cluster.node.live("consuming")
        session.drop()
        await consumer.wait_for(State.RECOVERING)
        cluster.streams["s"].append([simple_entry(b"0")], 1, cluster.node.tick())
        assert await read(consumer, 1) == [b"0"]


async def test_points_in_time_and_ages(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    when = datetime(2024, 5, 1, tzinfo=UTC)
    async with connect(cluster) as env:
        async with env.consumer("s", offset=when):
            pass
        async with env.consumer("s", offset=timedelta(hours=1)):
            pass
        with pytest.raises(ConfigurationError, match="time zone"):
            env.consumer("s", offset=datetime(2024, 5, 1))
        with pytest.raises(ConfigurationError, match="offset='begin'"):
            env.consumer("s", offset="begin")
    at, age = [command.offset for command in cluster.node.received(Subscribe)]
    assert at == OffsetSpec.timestamp(1714521600000)
    ago = datetime.now(UTC) - datetime.fromtimestamp(age.value / 1000, UTC)
    assert timedelta(minutes=59) < ago < timedelta(minutes=61)


async def test_not_asking_stops_the_broker(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(100))
    async with connect(cluster) as env, env.consumer("s", credit=10) as consumer:
        await anyio.sleep(60)
        assert consumer.statistics()["buffered_chunks"] == 10
        await anext(consumer)
        await anyio.sleep(60)
        assert consumer.statistics()["buffered_chunks"] == 9
        assert cluster.node.received(Credit) == []
        await anext(consumer)
        await anyio.sleep(60)
        assert consumer.statistics()["buffered_chunks"] == 9
        assert sum(c.credit for c in cluster.node.received(Credit)) == 1


async def test_credit_strategies(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(50))
    async with connect(cluster) as env:
        async with env.consumer("s", credit=CreditOnArrival(5)) as consumer:
            await anyio.sleep(1)
            assert consumer.statistics()["buffered_chunks"] == 50
        async with env.consumer("s", credit=CreditWhenDone(1)) as consumer:
            assert await read(consumer, 500) == numbers(500)


async def test_it_resumes_behind_what_it_handed_over(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(60))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        bodies = await read(consumer, 200)
        for _ in range(3):
            [session] = cluster.node.live("consuming")
            session.drop()
            await consumer.wait_for(State.RECOVERING)
            bodies += await read(consumer, 100)
        assert bodies == numbers(500)
        assert consumer.statistics()["recoveries"] == 3
        assert consumer.statistics()["buffered_chunks"] <= 10
    offsets = [c.offset for c in cluster.node.received(Subscribe)]
    last_read = map(OffsetSpec.offset, (190, 290, 390))  # it shows that the stream is the same
    assert offsets == [OffsetSpec.first(), *last_read]


async def test_a_connection_lost_inside_a_delivery_repeats_nothing(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env, env.consumer("s", offset=5) as consumer:
        assert (await anext(consumer)).bodies == numbers(5, 5)
        cluster.node.live("consuming")[0].drop()
        assert await read(consumer, 20) == numbers(20, 10)


async def test_pitfall_17_a_server_that_says_goodbye_is_answered_and_left(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 17: answer a server's Close, then recover."""
    cluster.add("s", *chunks(30))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        bodies = await read(consumer, 50)
        [session] = cluster.node.live("consuming")
        session.send(Close(7, 1, "maintenance"))
        bodies += await read(consumer, 250)
        assert bodies == numbers(300)
        assert Response(Key.CLOSE, 7, 1) in session.received


async def test_pitfall_16_readers_go_to_replicas_and_fall_back_to_the_leader(
    connect: Connect,
) -> None:
    """Pitfall 16: Subscribe needs a node with a member."""
    cluster = Cluster(3)
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env:
        async with env.consumer("s") as consumer:
            await read(consumer, 10)
            assert cluster.nodes[0].live("consuming") == []
        for node in cluster.nodes[1:]:
            node.scripts[Subscribe] = not_available
        async with env.consumer("s") as consumer:
            assert await read(consumer, 10) == numbers(10)
            assert len(cluster.nodes[0].live("consuming")) == 1


def not_available(session: Session, command: Subscribe) -> bool:
    session.ok(Key.SUBSCRIBE, command.correlation_id, Code.STREAM_NOT_AVAILABLE)
    return True


async def test_pitfall_14_it_follows_its_stream(connect: Connect) -> None:
    """Pitfall 14: MetadataUpdate means "look again"."""
    cluster = Cluster(3)
    cluster.add("s", *chunks(20))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        bodies = await read(consumer, 50)
        cluster.nodes[1].up = cluster.nodes[2].up = False
        cluster.node.forget("s")
        bodies += await read(consumer, 150)
        assert bodies == numbers(200)
        assert len(cluster.nodes[0].live("consuming")) == 1


async def test_a_stream_created_again_is_read_from_its_beginning(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(5))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        del cluster.streams["s"]
        cluster.node.forget("s")
        await consumer.wait_for(State.RECOVERING)
        await anyio.sleep(2)
        cluster.add("s", *chunks(2))
        assert await read(consumer, 20) == numbers(20)


async def test_a_stream_created_again_at_once_is_noticed_too(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(5))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        cluster.add("s", *chunks(8))
        cluster.node.forget("s")
        assert await read(consumer, 80) == numbers(80)


async def test_a_replica_that_is_behind_is_not_taken_for_another_stream(
    cluster: Cluster, connect: Connect
) -> None:
    log = cluster.add("s", *chunks(10))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 100) == numbers(100)
        log.index = lambda spec: 7  # type: ignore[method-assign]
        cluster.node.live("consuming")[0].drop()
        await consumer.wait_for(State.RECOVERING)
        log.append([simple_entry(body) for body in numbers(5, 100)], 5, cluster.node.tick())
        assert await read(consumer, 5) == numbers(5, 100)
        assert consumer.statistics()["recoveries"] == 1


async def test_a_new_leader_that_knows_of_nothing_committed_is_waited_for(
    cluster: Cluster, connect: Connect
) -> None:
    """It sends nothing for a moment, as if its stream were empty: and so a new one."""
    cluster.add("s", *chunks(10))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        cluster.node.uncommitted = True
        cluster.node.forget("s")
        await consumer.wait_for(State.RECOVERING)
        await anyio.sleep(2)
        assert consumer.state is State.RECOVERING
        with pytest.raises(StreamNotAvailable, match="does not know yet what is committed"):
            await env.last_offset("s")
        cluster.node.uncommitted = False
        assert await read(consumer, 50) == numbers(50, 50)
        assert consumer.position == 100


async def test_a_stream_created_again_and_empty_is_waited_for(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(5))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 50) == numbers(50)
        new = cluster.add("s")
        cluster.node.forget("s")
        await consumer.wait_for(State.RECOVERING)
        await anyio.sleep(2)
        assert consumer.state is State.OPEN
        new.append([simple_entry(b"0")], 1, cluster.node.tick())
        cluster.node.deliver("s")
        assert await read(consumer, 1) == [b"0"]
        assert consumer.position == 1


async def test_a_missing_stream_fails_at_once_then_after_a_while(
    cluster: Cluster, connect: Connect
) -> None:
    async with connect(cluster, missing_timeout=10.0) as env:
        with pytest.raises(StreamDoesNotExist, match="nope"):
            await env.consumer("nope").__aenter__()
        cluster.add("s", *chunks(1))
        async with env.consumer("s") as consumer:
            await read(consumer, 10)
            del cluster.streams["s"]
            cluster.node.forget("s")
            with pytest.raises(StreamDoesNotExist):
                await anext(consumer)
            assert consumer.state is State.CLOSED
            with pytest.raises(StreamDoesNotExist):
                await anext(consumer)
        assert env.statistics()["subscriptions"] == 0


def damaged(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


async def test_pitfall_4_a_damaged_chunk_fails_the_subscription_and_is_not_skipped(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 4: a CRC mismatch fails the subscription; never skip the chunk."""
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        await read(consumer, 10)
        [session] = cluster.node.live("consuming")
        chunk = build_chunk([simple_entry(b"10")], records=1, offset=10, timestamp=1)
        session.send(Deliver(0, damaged(chunk), 10))
        session.send(
            Deliver(0, build_chunk([simple_entry(b"11")], records=1, offset=11, timestamp=1))
        )
        with pytest.raises(ChecksumMismatch, match="offset 10"):
            await anext(consumer)
        with pytest.raises(ChecksumMismatch):
            await anext(consumer)
        assert consumer.position == 10


async def test_a_chunk_that_is_none_fails_only_its_consumer(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env, env.consumer("s") as bad, env.consumer("s") as good:
        await read(bad, 10)
        [session] = cluster.node.live("consuming")
        session.send(Deliver(0, b"\x00" * 60, None))
        with pytest.raises(ProtocolError, match="0x50"):
            await anext(bad)
        assert await read(good, 10) == numbers(10)
        assert good.statistics()["recoveries"] == 0


async def test_entries_of_both_kinds_and_gaps_in_offsets(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfalls 2 and 3: loop by entries, advance by records; offsets have gaps."""
    log = cluster.add("s")
    batch = sub_entry_bytes(sub_entry(0, numbers(3, 1)))
    log.append([simple_entry(b"0"), batch, simple_entry(b"4")], 5, 1)
    log.next_offset = 9
    log.append([simple_entry(b"9"), simple_entry(b"10")], 2, 2)
    async with connect(cluster) as env:
        async with env.consumer("s") as consumer:
            assert await read(consumer, 7) == [*numbers(5), b"9", b"10"]
        async with env.consumer("s", offset=6) as consumer:
            assert await read(consumer, 2) == [b"9", b"10"]


async def test_the_clients_half_of_filtering_keeps_offsets(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(4))
    wanted = {b"3", b"7", b"35"}
    async with connect(cluster) as env:
        consumer = env.consumer(
            "s", filter_values=["a", "b"], match_unfiltered=True, match=lambda body: body in wanted
        )
        async with consumer:
            first, second = await anext(consumer), await anext(consumer)
            assert (first.offset, first.offsets, first.bodies) == (3, [3, 7], [b"3", b"7"])
            assert (second.offset, second.offsets) == (35, [35])
        [subscribe] = cluster.node.received(Subscribe)
        assert subscribe.properties == {
            "filter.0": "a",
            "filter.1": "b",
            "match-unfiltered": "true",
        }
        with pytest.raises(ConfigurationError, match="match="):
            env.consumer("s", filter_values=["a"])


async def test_old_servers_are_told_apart(connect: Connect) -> None:
    cluster = Cluster(version="3.10.8")
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env:
        with pytest.raises(NotSupported, match=r"RabbitMQ 3\.13"):
            await env.consumer("s", filter_values=["a"], match=bool).__aenter__()
        with pytest.raises(NotSupported, match=r"RabbitMQ 3\.11"):
            await env.consumer("s", reference="n", single_active=True).__aenter__()
        async with env.consumer("s") as consumer:
            delivery = await anext(consumer)
            assert delivery.bodies == numbers(10)


async def test_message_by_message(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(2))
    seen = []
    async with connect(cluster) as env, env.consumer("s", offset=8) as consumer:
        async for message in consumer.messages():
            seen.append((message.stream, message.offset, message.body))
            if len(seen) == 4:
                break
    assert seen == [("s", n, b"%d" % n) for n in range(8, 12)]


async def test_pitfall_5_deliveries_after_the_end_are_dropped(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 5: deliveries can still arrive before Unsubscribe's answer."""
    cluster.add("s", *chunks(1))

    def late(session: Session, command: Unsubscribe) -> bool:
        chunk = build_chunk([simple_entry(b"10")], records=1, offset=10, timestamp=1)
        session.send(Deliver(command.subscription_id, chunk, 10))
        return False

    cluster.node.scripts[Unsubscribe] = late
    async with connect(cluster) as env:
        async with env.consumer("s") as consumer:
            await read(consumer, 10)
        with pytest.raises(StopAsyncIteration):
            await anext(consumer)
        assert consumer.statistics()["buffered_chunks"] == 0


async def test_pitfall_5_deliveries_before_subscribes_answer_are_kept(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 5: the handler is registered before Subscribe is sent."""
    cluster.add("s", *chunks(1))

    def early(session: Session, command: Subscribe) -> bool:
        chunk = build_chunk(
            [simple_entry(body) for body in numbers(10)], records=10, offset=0, timestamp=1
        )
        session.send(Deliver(command.subscription_id, chunk, 0))
        session.ok(Key.SUBSCRIBE, command.correlation_id)
        return True

    cluster.node.scripts[Subscribe] = early
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert await read(consumer, 10) == numbers(10)


async def test_pitfall_6_refused_credit_is_nothing_special(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 6: credit errors have no correlation id; code 17 after a demotion is normal."""
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        cluster.node.live("consuming")[0].send(CreditError(17, 0))
        cluster.node.live("consuming")[0].send(CreditError(4, 99))
        assert await read(consumer, 30) == numbers(30)
        assert consumer.statistics()["recoveries"] == 0


# --- tracking -----------------------------------------------------------------------------------


def stores(node: Node) -> list[int]:
    """What was stored, all of it under the consumer's own name: nothing that is kept for good."""
    stored = node.received(StoreOffset)
    assert not [command for command in stored if command.reference.endswith(KEPT_SUFFIX)]
    return [command.offset for command in stored]


async def test_offsets_are_stored_by_count_and_verified_at_the_end(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(10))
    async with connect(cluster) as env:
        tracking = AutoTracking(messages=25, interval=1000)
        async with env.consumer("s", reference="me", tracking=tracking) as consumer:
            await read(consumer, 80)
        assert stores(cluster.node) == [29, 59, 79]
        assert cluster.streams["s"].offsets["me"] == 79
        async with env.consumer("s", reference="me", tracking=tracking) as consumer:
            assert await consumer.stored_offset() == 79
            assert await read(consumer, 20) == numbers(20, 80)


async def test_pitfall_9_offsets_are_stored_by_the_clock_when_they_advanced(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 9: every store can write a tracking chunk: not per message, and not for nothing."""
    cluster.add("s", *chunks(2))
    async with connect(cluster) as env:
        tracking = AutoTracking(messages=1000, interval=5)
        async with env.consumer("s", reference="me", tracking=tracking) as consumer:
            await read(consumer, 20)
            with anyio.move_on_after(100):
                await anext(consumer)
            assert stores(cluster.node) == [19]


async def test_pitfall_8_manual_tracking_stores_what_it_is_told(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 8: resume at the stored offset + 1; a stored 0 is not "nothing stored"."""
    cluster.add("s", *chunks(2))
    async with connect(cluster) as env:
        options: dict[str, Any] = {"reference": "me", "tracking": "manual", "offset": "last"}
        async with env.consumer("s", **options) as consumer:
            assert await consumer.stored_offset() is None
            assert (await anext(consumer)).offset == 10
            await consumer.store_offset(0)
        async with env.consumer("s", **options) as consumer:
            assert (await anext(consumer)).offset == 1
        assert stores(cluster.node) == [0, 0]


async def test_pitfall_7_an_offset_that_is_lost_silently_is_noticed(
    cluster: Cluster, connect: Connect
) -> None:
    """Pitfall 7: StoreOffset is lost silently: verify."""
    cluster.add("s", *chunks(1))
    lost = iter([True, True, False])
    cluster.node.scripts[StoreOffset] = lambda session, command: (
        command.reference == "me" and next(lost, True)
    )
    async with connect(cluster) as env:
        await env.store_offset_verified("me", "s", 5)
        assert stores(cluster.node) == [5, 5, 5]
        start = anyio.current_time()
        with pytest.raises(CommitNotVerified, match="permissions"):
            await env.store_offset_verified("me", "s", 6)
        assert anyio.current_time() - start <= 10
        with pytest.raises(ConfigurationError, match="255 bytes"):
            await env.store_offset("x" * 256, "s", 6)


async def test_an_offset_is_remembered_when_the_broker_has_forgotten_it(
    cluster: Cluster, connect: Connect
) -> None:
    """As RabbitMQ does once retention has passed it."""
    cluster.add("s", *chunks(3))
    offsets = cluster.streams["s"].offsets
    async with connect(cluster) as env:
        for offset in (-1, 0, 12):
            await env.store_offset_verified("me", "s", offset, keep=True)
            del offsets["me"]
            assert await env.query_offset("me", "s") == offset
        await env.store_offset_verified("x" * 255, "s", 7, keep=True)
        del offsets["x" * 255]
        assert await env.query_offset("x" * 255, "s") is None  # the name left no room to keep it
        with pytest.raises(ConfigurationError, match="must not end in"):
            await env.store_offset("me#kept", "s", 1)
        with pytest.raises(ConfigurationError, match="or -1 to begin at offset 0"):
            await env.store_offset("me", "s", KEPT)
        async with env.consumer("s", reference="me", offset="next", tracking="manual") as consumer:
            assert (await anext(consumer)).offset == 13


@pytest.mark.parametrize("passes_at", range(4))
async def test_what_is_forgotten_is_so_whenever_retention_passes(
    cluster: Cluster, connect: Connect, passes_at: int
) -> None:
    cluster.add("s", *chunks(3))
    offsets = cluster.streams["s"].offsets
    count = 0

    def pass_then(session: Session, command: StoreOffset) -> bool:
        nonlocal count
        count += 1
        if count == passes_at:
            for reference in [it for it, offset in offsets.items() if offset == 0]:
                del offsets[reference]
        return False

    async with connect(cluster) as env:
        await env.store_offset_verified("me", "s", 12, keep=True)
        cluster.node.scripts[StoreOffset] = pass_then
        await env.forget_offset("me", "s")
        assert await env.query_offset("me", "s") is None
        assert count >= passes_at


@pytest.mark.parametrize(("keep", "stored"), [(True, -1), (False, None)])
async def test_a_kept_name_has_its_beginning_stored_at_the_first_message_too(
    cluster: Cluster, connect: Connect, keep: bool, stored: int | None
) -> None:
    cluster.add("s", *chunks(3))
    options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking(), "keep_offset": keep}
    async with connect(cluster) as env:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with env.consumer("s", offset="first", **options) as consumer:
                await anext(consumer)
                raise ZeroDivisionError
        assert await env.query_offset("me", "s") == stored


async def test_verifying_goes_on_over_lost_connections(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(1))
    times = 0

    def drop(session: Session, command: StoreOffset) -> bool:
        nonlocal times
        times += 1
        if times < 4:
            session.drop()
        return times < 4

    async with connect(cluster) as env:
        cluster.node.scripts[StoreOffset] = drop
        await env.store_offset_verified("me", "s", 7)
        assert await env.query_offset("me", "s") == 7
        cluster.node.scripts[QueryOffset] = lambda session, command: True
        with pytest.raises(CommitNotVerified, match=r"was not stored \(.* did not answer"):
            await env.store_offset_verified("me", "s", 8)


async def test_an_end_that_cannot_verify_raises(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(1))
    cluster.node.scripts[StoreOffset] = lambda session, command: True
    async with connect(cluster) as env:
        with pytest.raises(CommitNotVerified):
            async with env.consumer("s", reference="me", tracking=AutoTracking()) as consumer:
                await read(consumer, 10)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with env.consumer("s", reference="me", tracking=AutoTracking()) as consumer:
                await read(consumer, 10)
                raise ZeroDivisionError
        assert env.statistics()["subscriptions"] == 0


async def test_an_unknown_reference_has_no_offset(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(1))
    async with connect(cluster) as env:
        assert await env.query_offset("me", "s") is None
        await env.store_offset("me", "s", 0)
        assert await env.query_offset("me", "s") == 0

        def refuse(session: Session, command: QueryOffset) -> bool:
            session.send(QueryOffsetResponse(command.correlation_id, Code.STREAM_DOES_NOT_EXIST))
            return True

        cluster.node.scripts[QueryOffset] = refuse
        with pytest.raises(StreamDoesNotExist) as caught:
            await env.query_offset("me", "s")
        assert (caught.value.stream, caught.value.reference) == ("s", "me")


async def test_what_happens_is_told(cluster: Cluster, connect: Connect, recorder: Recorder) -> None:
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        await anyio.sleep(1)
        await read(consumer, 30)
        cluster.node.live("consuming")[0].drop()
        await consumer.wait_for(State.RECOVERING)
        await consumer.wait_for(State.OPEN)
    chunk_events = recorder.of(ChunkReceived)
    assert [(e.stream, e.messages, e.credits) for e in chunk_events[:3]] == [
        ("s", 10, 9),
        ("s", 10, 8),
        ("s", 10, 7),
    ]
    states = [e.state for e in recorder.of(StateChanged) if e.kind == "consumer"]
    assert states == ["connecting", "open", "recovering", "open", "closed"]
