"""Consuming: the exact first message, credit as demand, resumption, damage, and the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowstream.client import CreditOnArrival, CreditWhenDone, Delivery, State
from flowstream.errors import (
    ChecksumMismatch,
    ConfigurationError,
    ProtocolError,
)
from flowstream.protocol import (
    Credit,
    Deliver,
    OffsetSpec,
    Subscribe,
    build_chunk,
    simple_entry,
    sub_entry,
    sub_entry_bytes,
)
from flowstream.telemetry import ChunkReceived, StateChanged
from tests.client.bodies import chunks, numbers, read
from tests.client.conftest import Connect, Recorder
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


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
            env.consumer("s", offset="begin")  # type: ignore[arg-type]
    at, age = [command.offset for command in cluster.node.received(Subscribe)]
    assert at == OffsetSpec.timestamp(1714521600000)
    ago = datetime.now(UTC) - datetime.fromtimestamp(age.value / 1000, UTC)
    assert timedelta(minutes=59) < ago < timedelta(minutes=61)


async def test_not_asking_stops_the_broker(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(100))
    async with connect(cluster) as env, env.consumer("s", credit=5) as consumer:
        await anyio.sleep(60)
        assert consumer.statistics()["buffered_chunks"] == 5
        await anext(consumer)
        await anyio.sleep(60)
        assert consumer.statistics()["buffered_chunks"] == 4
        assert cluster.node.received(Credit) == []
        await anext(consumer)
        await anyio.sleep(60)
        assert consumer.statistics()["buffered_chunks"] == 4
        assert sum(c.credit for c in cluster.node.received(Credit)) == 1


@pytest.mark.parametrize(("credit", "together"), [(1, 1), (5, 1), (6, 2), (10, 3), (100, 25)])
async def test_the_credit_of_a_quarter_of_the_chunks_is_returned_together(
    cluster: Cluster, connect: Connect, credit: int, together: int
) -> None:
    """A frame for each chunk would cost as much as a chunk of few messages."""
    cluster.add("s", *chunks(300))
    async with connect(cluster) as env, env.consumer("s", credit=credit) as consumer:
        for asked in range(together):
            await anext(consumer)
            await anyio.sleep(1)
            assert consumer.statistics()["buffered_chunks"] == credit - 1 - asked
        await anext(consumer)
        await anyio.sleep(1)
        assert consumer.statistics()["buffered_chunks"] == credit - 1
        assert [c.credit for c in cluster.node.received(Credit)] == [together]
        await read(consumer, 500)
        assert {c.credit for c in cluster.node.received(Credit)} == {together}


class HoldsBack:
    """A strategy that leaves the broker only one more than the half that it does not use."""

    initial = 10

    def __init__(self) -> None:
        self._kept = 0

    def arrived(self) -> int:
        return 0

    def done(self) -> int:
        self._kept += 1
        return int(self._kept > 4)


async def test_the_credit_of_an_own_strategy_is_returned_as_it_says(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(50))
    async with connect(cluster) as env, env.consumer("s", credit=HoldsBack()) as consumer:
        assert await read(consumer, 500) == numbers(500)
    assert {c.credit for c in cluster.node.received(Credit)} == {1}


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


async def test_message_by_message(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s", *chunks(2))
    seen = []
    async with connect(cluster) as env, env.consumer("s", offset=8) as consumer:
        async for message in consumer.messages():
            seen.append((message.stream, message.offset, message.body))
            if len(seen) == 4:
                break
    assert seen == [("s", n, b"%d" % n) for n in range(8, 12)]


async def test_what_is_left_of_a_chunk_comes_with_the_next_iteration(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env, env.consumer("s") as consumer:
        assert [(await anext(consumer.messages())).offset for _ in range(12)] == [*range(12)]
        rest = await anext(consumer)
        assert (rest.offset, rest.offsets, rest.bodies) == (12, range(12, 20), numbers(8, 12))
        assert (await anext(consumer.messages())).offset == 20
    with pytest.raises(StopAsyncIteration):
        await anext(consumer)


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
