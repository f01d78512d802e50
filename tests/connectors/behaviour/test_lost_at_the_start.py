"""A run that has connected survives the loss of its connections at every step of its start.

The same run is repeated, and its broker hangs up at the first, second, third ... command that it
gets, comes back at once or later, and all messages must arrive. Time is virtual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flowstream import (
    Environment,
    Message,
    Pipeline,
    Producer,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.errors import ConnectionFailed
from flowstream.protocol import Address
from flowstream.testing import virtual_time
from tests.client.conftest import URL
from tests.client.scripted import _HANDLERS, Cluster, Session

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time("trio")


class Fault:
    """Ends all connections at the command number `at` after `begin`, for `away` seconds."""

    def __init__(self, cluster: Cluster, at: int, away: float) -> None:
        self.cluster = cluster
        self.at = at
        self.away = away
        self.count: int | None = None
        self.due = anyio.Event()
        for kind in _HANDLERS:
            cluster.node.scripts[kind] = self.received

    def begin(self) -> None:
        self.count = 0

    def received(self, session: Session, command: Any) -> bool:
        if self.count is None:
            return False
        self.count += 1
        if self.count != self.at:
            return False
        self.cluster.node.kill()
        self.due.set()
        return True

    async def repair(self) -> None:
        await self.due.wait()
        await anyio.sleep(self.away)
        self.cluster.node.up = True


def environment_on(cluster: Cluster) -> Environment:
    environment = Environment(URL)
    environment._manager.dial = cluster.dial
    return environment


def numbered(cluster: Cluster, stream: str) -> None:
    bodies = [f"{stream}@{number}".encode() for number in range(30)]
    cluster.add(stream, bodies[:10], bodies[10:20], bodies[20:])


def stream(cluster: Cluster) -> tuple[Producer, int]:
    numbered(cluster, "orders")
    return StreamProducer("orders"), 30


def the_last_chunk(cluster: Cluster) -> tuple[Producer, int]:
    numbered(cluster, "orders")
    return StreamProducer("orders", offset="last"), 10


def super_stream(cluster: Cluster) -> tuple[Producer, int]:
    cluster.super_streams["orders"] = ["orders-0", "orders-1"]
    numbered(cluster, "orders-0")
    numbered(cluster, "orders-1")
    return SuperStreamProducer("orders"), 60


def group(cluster: Cluster) -> tuple[Producer, int]:
    cluster.super_streams["orders"] = ["orders-0"]
    numbered(cluster, "orders-0")
    return SuperStreamProducer("orders", single_active=True, offset="last"), 10


def stored(cluster: Cluster) -> set[int | None]:
    logs = [log for name, log in cluster.streams.items() if name != "out"]
    return {log.offsets.get("shop") for log in logs}


async def commands_of_a_run(
    cluster: Cluster, environment: Environment, producer: Producer, wanted: int, fault: Fault
) -> int:
    """How many commands the broker got until all messages were published to `out` and stored."""
    cluster.add("out")
    seen: set[bytes] = set()
    pipeline = Pipeline("shop", producer, commit_interval=0.5)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        seen.add(message.data)

    pipeline.sink("default", StreamSink("out"), size=10, batch_timeout=0.1)
    async with environment:
        fault.begin()
        async with pipeline.start(environment=environment) as running:
            with anyio.fail_after(120):
                while running.statistics().settled != {"ok": wanted}:
                    await anyio.sleep(0.1)
                commands, fault.count = fault.count, None
                while stored(cluster) != {29}:
                    await anyio.sleep(0.1)
    assert commands is not None
    assert len(seen) == wanted
    return commands


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "away"),
    [(stream, 0.0), (the_last_chunk, 12.0), (super_stream, 0.0), (group, 12.0)],
)
async def test_every_message_arrives_wherever_the_connections_are_lost(
    source: Callable[[Cluster], tuple[Producer, int]], away: float
) -> None:
    at, commands = 0, 1
    while at <= commands:
        cluster = Cluster()
        fault = Fault(cluster, at, away)
        producer, wanted = source(cluster)
        async with anyio.create_task_group() as repairing:
            repairing.start_soon(fault.repair)
            count = await commands_of_a_run(
                cluster, environment_on(cluster), producer, wanted, fault
            )
            repairing.cancel_scope.cancel()
        commands = count if at == 0 else commands
        at += 1
    assert commands > 40


async def test_an_address_that_never_answered_ends_the_run_at_once() -> None:
    """The broker of the stream advertises an address that cannot be reached from here."""
    cluster = Cluster(2)
    numbered(cluster, "orders")
    cluster.leaders["orders"] = 1
    environment = environment_on(cluster)
    dial = cluster.dial

    async def partly(address: Address) -> Any:
        if address.host == "node1":
            raise ConnectionFailed("no broker at node1:5552: the host name cannot be resolved")
        return await dial(address)

    environment._manager.dial = partly
    pipeline = Pipeline("shop", StreamProducer("orders"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    async with environment:
        cluster.nodes[0].scripts.clear()
        begun = anyio.current_time()
        with pytest.raises(ConnectionFailed, match="node1"):
            await pipeline.run(environment=environment)
        assert anyio.current_time() - begun < 1
