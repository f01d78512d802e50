"""Cancellation at every await leaves no task, socket or half-registered id: by enumeration.

Each operation runs again and again, cancelled after its first, second, third ... step, until it
runs through. What is looked at afterwards is the broker's side and the environment's own count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowstream.client import AutoTracking, Environment
from tests.client.conftest import Connect
from tests.client.scripted import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]


async def at_every_step(
    make: Callable[[], Coroutine[Any, Any, None]], check: Callable[[], Awaitable[None]]
) -> int:
    """Runs the operation until it is not cancelled any more; returns how many steps it has.

    A step is one turn of the event loop, in which every task that can goes on to its next await:
    the operation's own and those of the tasks in the background that work for it.
    """
    steps = 0
    while True:
        ended = anyio.Event()
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(_run, make, scope, ended)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            finished = ended.is_set()
            scope.cancel()
        await check()
        if finished:
            return steps
        steps += 1


async def _run(
    make: Callable[[], Coroutine[Any, Any, None]], scope: anyio.CancelScope, ended: anyio.Event
) -> None:
    with scope:
        await make()
    ended.set()


def bodies(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def full_cluster() -> Cluster:
    cluster = Cluster()
    cluster.add("s", bodies(10), bodies(10), bodies(10))
    cluster.super_streams["x"] = ["x-0", "x-1"]
    for name in cluster.super_streams["x"]:
        cluster.add(name, bodies(5), bodies(5))
    return cluster


async def use_publisher(env: Environment) -> None:
    async with env.publisher("s", reference="me") as publisher:
        await publisher.send(b"a")
        await publisher.send_many(bodies(5))
        await publisher.publish(b"b")
        await publisher.flush()


async def use_consumer(env: Environment) -> None:
    async with env.consumer(
        "s", offset="last", reference="me", tracking=AutoTracking()
    ) as consumer:
        await anext(consumer)
        await consumer.done()


async def use_single_active(env: Environment) -> None:
    options: dict[str, Any] = {"reference": "me", "single_active": True, "tracking": AutoTracking()}
    async with env.consumer("s", **options) as consumer:
        await anext(consumer)


async def use_super_stream(env: Environment) -> None:
    async with env.super_stream_publisher("x", key=bytes.decode) as publisher:
        await publisher.publish_many(bodies(4))
    async with env.super_stream_consumer("x") as consumer:
        for _ in range(3):
            await anext(consumer)


async def use_admin(env: Environment) -> None:
    await env.create_stream("t", exist_ok=True)
    await env.stream_stats("s")
    await env.last_offset("s")
    await env.store_offset_verified("me", "s", 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "use", [use_publisher, use_consumer, use_single_active, use_super_stream, use_admin]
)
async def test_inside_an_environment_that_lives_on(
    connect: Connect, use: Callable[[Environment], Coroutine[Any, Any, None]]
) -> None:
    cluster = full_cluster()
    async with connect(cluster) as env:

        async def check() -> None:
            with anyio.fail_after(5):
                await anyio.wait_all_tasks_blocked()
            counts = env.statistics()
            assert (counts["publishers"], counts["subscriptions"]) == (0, 0)
            assert counts["tasks"] == counts["connections"] == len(cluster.node.live())
            roles = {session.name.split("-")[1] for session in cluster.node.live()}
            assert roles <= {"locating", "tracking"}
            cluster.streams["s"].offsets.clear()
            for session in cluster.node.sessions:
                assert session.publishers == {}
                assert session.subscriptions == {}

        assert await at_every_step(lambda: use(env), check) > 10
        await use(env)


@pytest.mark.slow
@pytest.mark.parametrize("use", [use_publisher, use_consumer, use_super_stream])
async def test_with_the_environment_around_it(
    connect: Connect, use: Callable[[Environment], Coroutine[Any, Any, None]]
) -> None:
    cluster = full_cluster()
    environments: list[Environment] = []

    async def whole() -> None:
        environments.append(connect(cluster))
        async with environments[-1] as env:
            await use(env)

    async def check() -> None:
        assert environments[-1].statistics()["tasks"] == 0
        assert environments[-1].statistics()["connections"] == 0
        assert cluster.node.live() == []
        cluster.streams["s"].offsets.clear()

    assert await at_every_step(whole, check) > 20


@pytest.mark.medium
async def test_while_the_broker_is_away(connect: Connect) -> None:
    cluster = full_cluster()
    async with connect(cluster) as env, env.publisher("s", confirm_timeout=None) as publisher:
        cluster.node.up = False
        for session in cluster.node.live():
            session.drop()

        async def use() -> None:
            await publisher.send(b"x")
            for block in (env.publisher("s"), env.consumer("s")):
                async with anyio.create_task_group() as group:
                    group.start_soon(block.__aenter__)  # it waits for the broker
                    for _ in range(10):
                        await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()

        async def check() -> None:
            assert env.statistics()["publishers"] == 0
            assert cluster.node.live() == []

        assert await at_every_step(use, check) > 5
        cluster.node.up = True
        await publisher.flush()
    assert cluster.node.live() == []
