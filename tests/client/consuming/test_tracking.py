"""When tracking stores an offset, and which one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from flowstream.client import AutoTracking, State
from flowstream.client.consuming.tracking import KEPT, Tracker
from flowstream.errors import (
    CommitNotVerified,
    ConfigurationError,
    StreamDoesNotExist,
    StreamNotAvailable,
)
from flowstream.protocol import (
    Code,
    QueryOffset,
    QueryOffsetResponse,
    StoreOffset,
)
from tests.client.bodies import chunks, numbers, read, stores
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time


def test_the_tracker_stores_by_count_and_only_what_advanced() -> None:
    tracker = Tracker(AutoTracking(messages=10))
    assert tracker.due() is None
    assert tracker.processed(3, 4) is None
    assert tracker.processed(11, 8) == 11
    assert tracker.due() is None
    assert tracker.processed(12, 1) is None
    assert tracker.due() == 12
    assert tracker.unverified() == 12
    tracker.forget()
    assert tracker.unverified() is None


def test_the_manual_tracker_stores_what_it_is_told() -> None:
    tracker = Tracker("manual")
    assert tracker.processed(100, 100_000) is None
    assert tracker.unverified() is None
    tracker.stored = 0
    assert tracker.unverified() == 0


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


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


@pytest.mark.parametrize(
    ("then", "stored", "begun"),
    [("store_beginning", None, -1), ("store -1", -1, -1), ("store 0", 0, 0), ("", None, None)],
)
async def test_a_name_that_was_forgotten_has_not_settled_its_first_message(
    cluster: Cluster, connect: Connect, then: str, stored: int | None, begun: int | None
) -> None:
    """`forget` leaves a 0 behind, which must not count as settled once something is stored."""
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env:
        await env.forget_offset("me", "s")
        if then == "store_beginning":
            await env.store_beginning("me", "s")
        elif then:
            await env.store_offset_verified("me", "s", int(then.split()[1]), keep=True)
        assert await env.query_offset("me", "s") == stored
        assert await env.query_beginning("me", "s") == begun


async def test_a_name_whose_first_store_after_it_was_forgotten_is_lost_halfway(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(3))
    async with connect(cluster) as env:
        await env.forget_offset("me", "s")
        kept = cluster.streams["s"].offsets
        await env.store_offset_verified("me", "s", -1, keep=True)
        kept["me"] = 0  # the copy is stored first
        assert await env.query_offset("me", "s") == -1


async def test_an_offset_that_is_stored_while_a_forgotten_name_is_read(
    cluster: Cluster, connect: Connect
) -> None:
    """A run that had just committed 29 warned that something else had stored 0."""
    cluster.add("s", *chunks(3))
    offsets = cluster.streams["s"].offsets

    def commit(session: Session, command: QueryOffset) -> bool:
        if command.reference == "me#kept":  # the second read
            offsets["me"], offsets["me#kept"] = 29, KEPT + 29
        return False

    async with connect(cluster) as env:
        await env.forget_offset("me", "s")
        cluster.node.scripts[QueryOffset] = commit
        assert await env.query_offset("me", "s") == 29


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


async def test_a_missing_stream_is_the_same_error_after_a_loss(connect: Connect) -> None:
    cluster = Cluster()
    cluster.add("s", [b"0"])
    async with connect(cluster) as env:
        await env.query_offset("me", "s")
        for session in cluster.node.live("tracking"):
            session.drop()
        await anyio.sleep(1)
        with pytest.raises(StreamDoesNotExist, match='read the offset of "me" on "gone"') as caught:
            await env.query_offset("me", "gone")
        assert caught.value.reference == "me"


async def test_a_stream_without_a_leader_is_not_asked_for_offsets_after_a_loss(
    connect: Connect,
) -> None:
    """RabbitMQ 4.0 ends the connection that asks, and with it the requests for other streams."""
    cluster = Cluster(2)
    cluster.add("s", [b"0"])
    cluster.add("other", [b"0"])

    def crash(session: Session, command: QueryOffset) -> bool:
        if command.stream == "s":
            session.drop()
        return command.stream == "s"

    async with connect(cluster, "rabbitmq-stream://node1,node0") as env:
        await env.query_offset("me", "s")
        cluster.leaders["s"] = 99
        for node in cluster.nodes:
            node.scripts[QueryOffset] = crash
            for session in node.live("tracking"):
                session.drop()
        await anyio.sleep(1)
        for _ in range(5):
            with pytest.raises(StreamNotAvailable):
                await env.query_offset("me", "s")
            with pytest.raises(StreamNotAvailable):
                await env.store_offset("me", "s", 1)
            assert await env.query_offset("me", "other") is None
        assert sum(len(node.live("tracking")) for node in cluster.nodes) == 1


# -- what was not processed is not stored


async def test_an_iteration_that_ends_within_a_chunk_stores_what_it_has_read(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(2))
    options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking()}
    async with connect(cluster) as env:
        async with env.consumer("s", **options) as consumer:
            async for message in consumer.messages():
                if message.offset == 13:
                    break
        assert stores(cluster.node)[-1] == 13
        async with env.consumer("s", **options) as consumer:
            assert await read(consumer, 6) == numbers(6, 14)


@pytest.mark.parametrize("interval", [1.0, 1000.0])
async def test_a_delivery_whose_connection_is_lost_is_not_processed_before_it_is_done(
    cluster: Cluster, connect: Connect, interval: float
) -> None:
    cluster.add("s", *chunks(2))
    options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking(interval=interval)}
    async with connect(cluster) as env:
        async with AsyncExitStack() as stack:
            consumer = await stack.enter_async_context(env.consumer("s", **options))
            await read(consumer, 10)
            await anext(consumer)
            cluster.node.live("consuming")[0].drop()
            await consumer.wait_for(State.RECOVERING)
            await consumer.wait_for(State.OPEN)
            await anyio.sleep(10)
            stack.pop_all()
            error = ValueError("not written")
            await consumer.__aexit__(type(error), error, None)
        assert cluster.streams["s"].offsets["me"] == 9


async def test_a_chunk_for_which_match_raises_is_not_passed_over(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s", *chunks(3))
    wrong = {b"15"}

    def match(body: bytes) -> bool:
        if body in wrong:
            raise ValueError("no number")
        return True

    options: dict[str, Any] = {"reference": "me", "tracking": AutoTracking(), "match": match}
    async with connect(cluster) as env, env.consumer("s", **options) as consumer:
        assert (await anext(consumer)).offset == 0
        for _ in range(2):
            with pytest.raises(ValueError, match="no number"):
                await anext(consumer)
        assert consumer.position == 10
        wrong.clear()
        assert await read(consumer, 20) == numbers(20, 10)
