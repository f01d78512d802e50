"""What networks do to a client: cut, stall, throttle, delay, split, refuse; on each real broker.

Under all of it a publisher and a consumer run at full speed and count (see traffic.py), and
afterwards connections and tasks are as many as before.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from flowstream.backoff import Backoff
from flowstream.client import Address, Environment, State
from tests.brokers.running import Broker
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.traffic import PATIENCE, leaves_nothing, memory, traffic

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]


@asynccontextmanager
async def behind_proxy(
    broker: Broker, stream: str, **options: Any
) -> AsyncIterator[tuple[Environment, Proxy]]:
    async with proxied(broker.host, broker.port) as proxy:
        here = Address("localhost", proxy.port)
        url = f"rabbitmq-stream://guest:guest@localhost:{proxy.port}/%2f"
        async with Environment(url, address_resolver=lambda _: here, **options) as env:
            await env.create_stream(stream, max_length_bytes=500_000_000)
            yield env, proxy


async def test_cuts(rabbitmq: Broker, stream_name: str) -> None:
    chance = random.Random(1)
    backoff = Backoff(maximum=1.0)  # what is cut again within a second is left alone for longer
    async with behind_proxy(rabbitmq, stream_name, backoff=backoff) as (env, proxy):
        async with traffic(env, stream_name) as running, leaves_nothing(running):
            for _ in range(15):
                with anyio.fail_after(PATIENCE):  # none, while all wait before they connect again
                    while not proxy.links:
                        await anyio.sleep(0.005)
                for link in chance.sample(proxy.links, chance.randint(1, len(proxy.links))):
                    link.reset()
                await running.recovers("cut", chance.randint(1, 5_000))
            proxy.reset_all()
            await running.recovers("all cut")
            assert running.publisher.statistics()["recoveries"] > 3
            assert running.consumer.statistics()["recoveries"] > 3
        assert env.statistics()["connections"] == 1


async def test_a_half_open_connection_is_noticed_by_its_heartbeats(
    rabbitmq: Broker, stream_name: str
) -> None:
    async with (
        behind_proxy(rabbitmq, stream_name, heartbeat=1, close_timeout=1.0) as (env, proxy),
        traffic(env, stream_name) as running,
    ):
        for link in tuple(proxy.links):
            link.faults.stall()
        # What had come through before can still be enough to look as if all flowed.
        async with anyio.create_task_group() as group:
            group.start_soon(running.publisher.wait_for, State.RECOVERING)
            group.start_soon(running.consumer.wait_for, State.RECOVERING)
        assert 1 < await running.recovers("half open, heartbeat 1 s") < 15


async def test_while_the_broker_cannot_be_reached_everything_waits(
    rabbitmq: Broker, stream_name: str
) -> None:
    async with (
        behind_proxy(rabbitmq, stream_name) as (env, proxy),
        traffic(env, stream_name) as running,
    ):
        proxy.refusing = True
        proxy.reset_all()
        await running.publisher.wait_for(State.RECOVERING)
        await running.consumer.wait_for(State.RECOVERING)
        await env.wait_for(State.RECOVERING)
        attempts = proxy.accepted
        await anyio.sleep(1)
        assert running.publisher.unconfirmed <= 5_000
        assert 1 <= proxy.accepted - attempts < 100
        proxy.refusing = False
        await running.recovers("one second away")


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("delayed by 50 ms", {"delay": 0.05}),
        ("1 MB/s", {"rate": 1_000_000.0, "piece": 10_000}),
        ("pieces of 7 bytes", {"piece": 7}),
    ],
)
async def test_slow_networks(
    rabbitmq: Broker, stream_name: str, name: str, faults: dict[str, Any]
) -> None:
    async with behind_proxy(rabbitmq, stream_name, heartbeat=2) as (env, proxy):
        for fault, value in faults.items():
            setattr(proxy.faults, fault, value)
        async with traffic(env, stream_name, slice_=20) as running:
            start = anyio.current_time()
            while anyio.current_time() - start < 5:
                await running.flows(50)
            assert running.publisher.statistics()["recoveries"] == 0
            assert running.consumer.statistics()["recoveries"] == 0
            proxy.faults.delay, proxy.faults.rate, proxy.faults.piece = 0.0, 0.0, 1 << 16


async def test_single_bytes(rabbitmq: Broker, stream_name: str) -> None:
    async with behind_proxy(rabbitmq, stream_name) as (env, proxy):
        proxy.faults.piece = 1
        async with env.publisher(stream_name) as publisher, env.consumer(stream_name) as consumer:
            await publisher.publish_many([b"%d" % n for n in range(200)])
            bodies: list[bytes] = []
            with anyio.fail_after(PATIENCE):
                while len(bodies) < 200:
                    bodies += (await anext(consumer)).bodies
            assert bodies == [b"%d" % n for n in range(200)]


async def test_a_blocked_publisher_blocks_nothing_else(rabbitmq: Broker, stream_name: str) -> None:
    """A broker at its unconfirmed limit, or with a disk alarm, stops reading the socket."""
    async with behind_proxy(rabbitmq, stream_name, heartbeat=1) as (env, proxy):
        await env.create_stream(f"{stream_name}.other")
        options: dict[str, Any] = {"confirm_timeout": None, "max_unconfirmed": 20_000}
        async with (
            env.publisher(stream_name, **options) as blocked,
            env.consumer(stream_name) as consumer,
        ):
            await blocked.publish(b"0")
            await anext(consumer)
            [link] = proxy.of("publishing")
            link.faults.stall()
            before = memory()
            with anyio.move_on_after(2) as waiting:
                while True:
                    await blocked.send_many([bytes(1000)] * 1000)
            assert waiting.cancelled_caught
            assert blocked.unconfirmed <= 20_000
            assert memory() - before < 100_000_000
            start = time.monotonic()
            assert await env.last_offset(stream_name) == 0
            await env.store_offset_verified("me", stream_name, 0)
            async with env.publisher(f"{stream_name}.other") as other:
                await other.publish(b"a publisher of its own connection")
            assert time.monotonic() - start < 5
            assert consumer.statistics()["recoveries"] == 0
            link.faults.resume()
            await blocked.flush()
        await env.delete_stream(f"{stream_name}.other")


async def test_pitfall_17_a_connection_closed_by_the_management(
    rabbitmq: Broker, stream_name: str
) -> None:
    """Pitfall 17: a management kill drops the socket, with or without a Close."""
    async with Environment(rabbitmq.url, name=stream_name) as env:
        await env.create_stream(stream_name, max_length_bytes=500_000_000)
        async with traffic(env, stream_name) as running:
            names = await anyio.to_thread.run_sync(connections_of, rabbitmq, stream_name)
            assert len(names) >= 3
            for name in names:
                await anyio.to_thread.run_sync(
                    rabbitmq.api, "DELETE", f"connections/{quote(name, safe='')}"
                )
            with anyio.fail_after(PATIENCE):
                while not (
                    running.publisher.statistics()["recoveries"]
                    and running.consumer.statistics()["recoveries"]
                ):
                    await anyio.sleep(0.01)
            await running.recovers("closed by the management")


def connections_of(broker: Broker, prefix: str) -> list[str]:
    """The names of the client's connections, once the management has heard of them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [
            connection["name"]
            for connection in broker.api("GET", "connections")
            if connection.get("client_properties", {}).get("connection_name", "").startswith(prefix)
        ]
        if len(found) >= 3:
            return found
        time.sleep(0.5)
    return []
