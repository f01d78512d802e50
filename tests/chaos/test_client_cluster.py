"""A publisher and a consumer at full speed on three real nodes that are killed, stopped and moved.

After each fault every confirmed message is consumed, in order and once (the publisher has a name),
nobody restarts anything, and connections, tasks and memory are what they were (see traffic.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from flowstream.client import Address, AutoTracking, Consumer, Environment, State, StreamNodes, Tls
from flowstream.errors import PublishFailed
from tests.brokers.running import Broker, Certificates
from tests.chaos.cluster import Nodes
from tests.chaos.proxy import proxied
from tests.chaos.traffic import PATIENCE, Traffic, leaves_nothing, traffic

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def settled(cluster: tuple[Broker, ...]) -> Nodes:
    nodes = Nodes(cluster)
    nodes.ensure()
    nodes.settle()
    return nodes


@pytest.fixture
def nodes(settled: Nodes, stream_name: str) -> Iterator[Nodes]:
    """The nodes; all of them run again before the test's streams are removed."""
    yield settled
    settled.ensure()


@asynccontextmanager
async def replicated(
    cluster: tuple[Broker, ...], stream: str, *, heartbeat: int = 5
) -> AsyncIterator[Environment]:
    async with Environment([node.url for node in cluster], heartbeat=heartbeat) as env:
        limits: dict[str, Any] = {"max_length_bytes": 500_000_000}
        await env.create_stream(stream, initial_cluster_size=3, **limits)
        yield env


async def members(env: Environment, stream: str, replicas: int = 2) -> StreamNodes:
    """Where the stream is, once it has a leader and so many replicas."""
    with anyio.fail_after(PATIENCE):
        while True:
            found = await env.metadata(stream)
            if found.leader is not None and len(found.replicas) >= replicas:
                return found
            await anyio.sleep(0.1)


async def kill_and_start(nodes: Nodes, number: int, running: Traffic, what: str) -> None:
    await run_sync(nodes.kill, number)
    await running.recovers(f"kill -9 of {what} {number}")
    await run_sync(nodes.start, number)
    await running.recovers(f"start of node {number}")


async def test_kill_the_leaders_node(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    async with (
        replicated(cluster, stream_name) as env,
        traffic(env, stream_name) as running,
        leaves_nothing(running),
    ):
        for _ in range(2):
            leader = (await members(env, stream_name)).leader
            assert leader is not None
            await kill_and_start(nodes, nodes.number(leader.port), running, "the leader's node")


async def test_kill_a_replicas_node(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    async with (
        replicated(cluster, stream_name) as env,
        traffic(env, stream_name) as running,
        leaves_nothing(running),
    ):
        for replica in (await members(env, stream_name)).replicas:
            await kill_and_start(nodes, nodes.number(replica.port), running, "a replica's node")


async def test_stop_and_start_each_node_in_turn(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    async with (
        replicated(cluster, stream_name) as env,
        traffic(env, stream_name) as running,
        leaves_nothing(running),
    ):
        for number in range(3):
            await run_sync(nodes.stop_cleanly, number)
            await running.recovers(f"stop of node {number}")
            await run_sync(nodes.start, number)
            await running.recovers(f"start of node {number}")
            await members(env, stream_name)


async def test_move_the_leader(cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str) -> None:
    async with (
        replicated(cluster, stream_name) as env,
        traffic(env, stream_name) as running,
        leaves_nothing(running),
    ):
        for number in range(3):
            await members(env, stream_name)
            await run_sync(nodes.move_leader, stream_name, number)
            await running.recovers(f"leader moved to node {number}")
        leader = (await members(env, stream_name)).leader
        assert leader is not None


async def test_restart_all(cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str) -> None:
    async with (
        replicated(cluster, stream_name) as env,
        traffic(env, stream_name) as running,
        leaves_nothing(running),
    ):
        await run_sync(nodes.kill, 0, 1, 2)
        await env.wait_for(State.RECOVERING)
        await run_sync(nodes.start, 0, 1, 2)
        await running.recovers("all nodes killed and started")


async def test_delete_and_create_the_stream(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    """What was confirmed in the new stream is consumed, from its first message on."""
    async with replicated(cluster, stream_name) as env:
        confirmed: list[bytes] = []
        consumed: list[bytes] = []
        stopping, published = anyio.Event(), anyio.Event()

        async def publish() -> None:
            number = 0
            async with env.publisher(stream_name, confirm_timeout=None) as publisher:
                while not stopping.is_set():
                    body = b"%d" % number
                    await publisher.publish(body)
                    confirmed.append(body)
                    number += 1
            published.set()

        async def consume() -> None:
            async with env.consumer(stream_name) as consumer:
                async for delivery in consumer:
                    consumed.extend(delivery.bodies)

        async with anyio.create_task_group() as group:
            group.start_soon(publish)
            group.start_soon(consume)
            for _ in range(3):
                so_far = len(confirmed)
                with anyio.fail_after(PATIENCE):
                    while len(confirmed) < so_far + 200:
                        await anyio.sleep(0.01)
                await env.delete_stream(stream_name)
                confirmed_before = len(confirmed)
                start = anyio.current_time()
                await env.create_stream(stream_name, initial_cluster_size=3)
                with anyio.fail_after(PATIENCE):
                    while len(confirmed) < confirmed_before + 200:
                        await anyio.sleep(0.01)
                print(f"\ndeleted and created: confirms after {anyio.current_time() - start:.2f} s")
            stopping.set()
            with anyio.fail_after(PATIENCE):
                await published.wait()
                while not consumed or consumed[-1] != confirmed[-1]:
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        last = await env.last_offset(stream_name)
        async with env.consumer(stream_name) as consumer:
            there = []
            with anyio.fail_after(PATIENCE):
                while consumer.position is None or consumer.position <= (last or 0):
                    there += (await anext(consumer)).bodies
        assert consumed[-len(there) :] == there


async def test_writers_go_to_leaders_and_readers_to_replicas(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    async with replicated(cluster, stream_name) as env:
        found = await members(env, stream_name)
        async with env.publisher(stream_name), env.consumer(stream_name):
            where = {c.role: c.wire.advertised for c in env._manager.connections}
        assert where["publishing"] == found.leader
        assert where["consuming"] in found.replicas


async def test_over_tls_the_nodes_tls_ports_are_used(
    cluster: tuple[Broker, ...], nodes: Nodes, certificates: Certificates, stream_name: str
) -> None:
    urls = [node.tls_url for node in cluster if node.tls_url is not None]
    async with Environment(urls, tls=Tls(ca=certificates.ca)) as env:
        await env.create_stream(stream_name, initial_cluster_size=3)
        found = await members(env, stream_name)
        async with env.publisher(stream_name) as publisher, env.consumer(stream_name) as consumer:
            await publisher.publish_many([b"0", b"1"])
            assert await read(consumer, 2) == [b"0", b"1"]
            where = {c.role: c.address for c in env._manager.connections}
        assert where["publishing"] == found.leader
        assert where["consuming"] in found.replicas
        assert {str(address.port) for address in where.values()} <= {url[-8:-4] for url in urls}


async def test_pitfall_15_behind_a_load_balancer(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    """Pitfall 15: a balancer leads anywhere; connect until the advertised node is the right one."""
    async with proxied(cluster[0].host, cluster[0].port) as proxy:
        turn = 0

        async def next_node() -> None:
            nonlocal turn
            while True:
                turn += 1
                proxy._upstream = ("localhost", cluster[turn % 3].port)
                await anyio.sleep(0.003)

        balancer = Address("localhost", proxy.port)
        url = f"rabbitmq-stream://guest:guest@localhost:{proxy.port}/%2f"
        async with anyio.create_task_group() as group:
            group.start_soon(next_node)
            options: dict[str, Any] = {"address_resolver": lambda _: balancer, "node_attempts": 100}
            async with Environment(url, **options) as env:
                await env.create_stream(stream_name, initial_cluster_size=3)
                found = await members(env, stream_name)
                async with traffic(env, stream_name) as running:
                    where = {c.role: c.wire.advertised for c in env._manager.connections}
                    assert where["publishing"] == found.leader
                    assert where["consuming"] in found.replicas
                    proxy.reset_all()
                    await running.recovers("cut behind a balancer")
            group.cancel_scope.cancel()


QUIET = 15.0
"""Seconds without a message after which no more is expected."""
MEMBERS = 'rabbit_stream_sac_coordinator:group_consumers(<<"/">>, <<"%s">>, <<"g">>, [state]).'


async def test_single_active_members_survive_a_node(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    """At least once: nothing is missing, whichever member is active after the kill.

    RabbitMQ 4.0 can leave a group with standing-by members only when a node dies (rabbitmq-server
    #13671). Where it tells so itself, the members go and come again, as its operators are advised.
    """
    seen: set[int] = set()
    sent = 0
    options: dict[str, Any] = {
        "reference": "g",
        "single_active": True,
        "tracking": AutoTracking(messages=500),
    }

    async def member(env: Environment) -> None:
        async with env.super_stream_consumer(stream_name, **options) as consumer:
            async for delivery in consumer:
                seen.update(map(int, delivery.bodies))

    async def two_members(env: Environment, until: Callable[[], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(member, env)
            group.start_soon(member, env)
            await until()
            group.cancel_scope.cancel()

    async def all_is_seen() -> None:
        before = -1
        while before < len(seen) < sent:
            before = len(seen)
            with anyio.move_on_after(QUIET):
                while len(seen) < sent:
                    await anyio.sleep(0.05)

    async with Environment([node.url for node in cluster], heartbeat=5) as env:
        await env.create_super_stream(stream_name, partitions=3, initial_cluster_size=3)

        async def nodes_die() -> None:
            nonlocal sent
            async with env.super_stream_publisher(
                stream_name, key=bytes.decode, reference="p", confirm_timeout=None
            ) as publisher:
                for number in range(3):
                    first, sent = sent, sent + 3_000
                    await publisher.publish_many([b"%d" % n for n in range(first, sent)])
                    await run_sync(nodes.kill, number)
                    first, sent = sent, sent + 3_000
                    with anyio.fail_after(PATIENCE):
                        await publisher.publish_many([b"%d" % n for n in range(first, sent)])
                    await run_sync(nodes.start, number)
            await all_is_seen()
            if len(seen) < sent:
                groups = [
                    await run_sync(cluster[0].ctl, "eval", MEMBERS % f"{stream_name}-{number}")
                    for number in range(3)
                ]
                assert any("inactive" in group and ",active" not in group for group in groups)
                print("\nthe broker has left a group without an active member")

        await two_members(env, nodes_die)
        if len(seen) < sent:
            await two_members(env, all_is_seen)
        await env.delete_super_stream(stream_name)
    assert seen == set(range(sent))


async def test_without_a_majority_publishing_fails_in_time_and_says_so(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    async with replicated(cluster, stream_name) as env:
        leader = (await members(env, stream_name)).leader
        assert leader is not None
        others = [n for n in range(3) if n != nodes.number(leader.port)]
        async with env.publisher(stream_name, confirm_timeout=3.0) as publisher:
            await publisher.publish(b"0")
            await run_sync(nodes.kill, *others)
            with pytest.raises(PublishFailed, match="not confirmed within 3 s"):
                await publisher.publish(b"1")
            await run_sync(nodes.start, *others)
            with anyio.fail_after(PATIENCE):
                while True:
                    try:
                        await publisher.publish(b"2")
                        break
                    except PublishFailed:
                        continue


@asynccontextmanager
async def disk_alarm(node: Broker) -> AsyncIterator[None]:
    await run_sync(node.ctl, "set_disk_free_limit", "999999GB")
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(node.ctl, "set_disk_free_limit", "50MB")


async def read(consumer: Consumer, messages: int) -> list[bytes]:
    bodies: list[bytes] = []
    with anyio.fail_after(PATIENCE):
        while len(bodies) < messages:
            bodies += (await anext(consumer)).bodies
    return bodies


async def test_a_disk_alarm_blocks_publishers_only(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    """Consumers, their credits, stored offsets, queries and heartbeats go on."""
    bodies = [b"%d" % number for number in range(100_000)]
    options: dict[str, Any] = {"confirm_timeout": None, "max_unconfirmed": 1_000}
    async with (
        replicated(cluster, stream_name, heartbeat=1) as env,
        env.publisher(stream_name, **options) as publisher,
        env.consumer(stream_name, credit=2) as consumer,
    ):
        await publisher.publish_many(bodies)
        async with disk_alarm(cluster[0]):
            with anyio.move_on_after(2) as blocked:
                while True:
                    await publisher.send_many([bytes(1000)] * 100)
            assert blocked.cancelled_caught
            consumed = await read(consumer, len(bodies))
            assert consumed[: len(bodies)] == bodies
            await env.store_offset_verified("me", stream_name, 7)
            assert await env.last_offset(stream_name) is not None
            async with env.consumer(stream_name, offset=len(bodies) - 1) as other:
                assert (await read(other, 1))[0] == bodies[-1]
            await anyio.sleep(4)  # twice as long as a silent connection would last
            assert consumer.statistics()["recoveries"] == 0
            assert 0 < publisher.unconfirmed <= 1_000
        with anyio.fail_after(PATIENCE):
            await publisher.flush()
        sent = publisher.statistics()["next_publishing_id"] - 1
        consumed += await read(consumer, sent - len(consumed))
        assert consumed[len(bodies) :] == [bytes(1000)] * (sent - len(bodies))


async def test_at_the_unconfirmed_limit_the_broker_blocks_publishers_only(
    cluster: tuple[Broker, ...], nodes: Nodes, stream_name: str
) -> None:
    """Without a majority nothing is confirmed, and after 50,000 the broker reads no more."""
    options: dict[str, Any] = {"confirm_timeout": None, "max_unconfirmed": 200_000}
    async with replicated(cluster, stream_name, heartbeat=1) as env:
        leader = (await members(env, stream_name)).leader
        assert leader is not None
        others = [n for n in range(3) if n != nodes.number(leader.port)]
        async with (
            env.publisher(stream_name, **options) as publisher,
            env.consumer(stream_name) as consumer,
        ):
            await publisher.publish(b"0")
            assert await read(consumer, 1) == [b"0"]
            await run_sync(nodes.kill, *others)
            with anyio.move_on_after(3):
                while True:
                    await publisher.send_many([bytes(100)] * 1_000)
            assert 50_000 < publisher.unconfirmed <= 200_000
            await consumer.wait_for(State.OPEN)
            recoveries = consumer.statistics()["recoveries"]
            await anyio.sleep(4)
            assert consumer.statistics()["recoveries"] == recoveries
            async with env.consumer(stream_name) as other:
                assert await read(other, 1) == [b"0"]
            await run_sync(nodes.start, *others)
            with anyio.fail_after(PATIENCE):
                await publisher.flush()
            await read(consumer, publisher.statistics()["next_publishing_id"] - 2)
