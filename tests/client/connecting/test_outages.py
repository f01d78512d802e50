"""A loss is one log record, however many publishers and consumers it concerns; so is its end."""

from __future__ import annotations

import logging
import re
from typing import Any

import anyio
import pytest

from flowstream.backoff import Backoff
from flowstream.client import State
from flowstream.client.connecting.outages import CALM, GATHER, REMIND
from flowstream.telemetry import BrokerBack, BrokerLost, StateChanged
from tests.client.conftest import SECRET, Connect, Recorder
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowstream")


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= level]


@pytest.mark.medium
async def test_a_broker_that_goes_is_told_once_for_all_of_its_users(
    cluster: Cluster, connect: Connect, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    partitions = [f"orders-{number}" for number in range(12)]
    for stream in (*partitions, "dead"):
        cluster.add(stream)
    cluster.super_streams["orders"] = partitions
    async with (
        connect(cluster, backoff=Backoff(0.1, maximum=2)) as env,
        env.super_stream_consumer("orders") as consumer,
        env.publisher("dead") as publisher,
    ):
        await anyio.sleep(5)
        assert said(caplog) == []
        caplog.clear()
        cluster.node.kill()
        await anyio.sleep(2)  # the client knows since the connections broke
        (lost,) = said(caplog, logging.INFO)
        assert "environment 'flowstream' lost its broker: node0:5552 closed the connection" in lost
        assert (
            "The consumers of orders-0, orders-1, orders-10, orders-11, orders-2 and 7 more" in lost
        )
        assert "and the publisher of dead wait" in lost
        assert "at most 2 s between attempts, for as long as it takes, but 30 s if" in lost
        await anyio.sleep(30)
        assert said(caplog, logging.INFO) == [lost]
        cluster.node.up = True
        await env.wait_for(State.OPEN)
        await publisher.wait_for(State.OPEN)
        await anyio.sleep(10)
        _, back = said(caplog, logging.INFO)
        assert "is connected to its broker again after 3" in back
        assert "the consumers of orders-0" in back
        assert len(consumer.active) == 12
    assert len(said(caplog)) == 2
    [event], [over] = recorder.of(BrokerLost), recorder.of(BrokerBack)
    assert (event.environment, event.what, len(event.waiting)) == ("flowstream", "its broker", 13)
    assert 30 < over.seconds < 40
    record = caplog.records[0]
    assert vars(record)["environment"] == "flowstream"
    assert SECRET not in caplog.text


async def test_the_state_is_told_at_once(
    cluster: Cluster, connect: Connect, recorder: Recorder
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.consumer("s"), env.publisher("s"):
        before = anyio.current_time()
        cluster.node.kill()
        await env.wait_for(State.RECOVERING)
        await anyio.sleep(0.001)
        away = {
            (event.kind, event.environment)
            for event in recorder.of(StateChanged)
            if event.state == "recovering"
        }
        assert away == {(kind, "flowstream") for kind in ("environment", "consumer", "publisher")}
        assert anyio.current_time() - before < 0.1
        cluster.node.up = True


async def test_a_publisher_alone(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        cluster.node.kill()
        await anyio.sleep(3)
        (lost,) = said(caplog)
        assert "lost its broker" in lost
        assert "The publisher of s waits." in lost
        cluster.node.up = True
        await publisher.wait_for(State.OPEN)
        await anyio.sleep(5)
        assert said(caplog)[-1].endswith("the publisher of s continues")


async def test_the_leader_of_one_partition(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on, and so does the connection that locates streams."""
    cluster = Cluster(nodes=2)
    for number in range(3):
        cluster.add(f"orders-{number}")
    cluster.super_streams["orders"] = [f"orders-{number}" for number in range(3)]
    cluster.leaders["orders-1"] = 1
    async with (
        connect(cluster) as env,
        env.super_stream_publisher("orders", key=lambda body: body.decode()) as publisher,
    ):
        await publisher.send_many([b"%d" % number for number in range(100)])
        await publisher.flush()
        cluster.nodes[1].kill()
        await anyio.sleep(5)
        (lost,) = said(caplog)
        assert "lost the node that serves orders-1: node1:5552 closed the connection" in lost
        assert env.state is State.OPEN
        cluster.move("orders-1", 0)
        await publisher.flush()
        await anyio.sleep(20)
        back = said(caplog)[-1]
        assert "is connected to the node that serves orders-1 again" in back
        assert len(said(caplog)) == 2


async def test_a_leader_that_moves_is_lost_and_back(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(nodes=2)
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        cluster.move("s", 1)
        await publisher.publish(b"x")
        await anyio.sleep(5)
        lost, back = said(caplog)
        assert "lost the node that serves s: the stream moved or was deleted (code 6)" in lost
        assert "again after 0." in back


async def test_a_long_outage_is_told_of_once_a_minute(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.consumer("s"):
        cluster.node.kill()
        await anyio.sleep(5 * REMIND + 2)
        _, *still = said(caplog)
        assert len(still) == 5
        assert "The consumer of s waits." in still[-1]
        assert re.search(r"has been without its broker for 30\d s: ", still[-1])
        assert "no broker at node0:5552: refused" in still[-1]


@pytest.mark.slow
async def test_what_comes_and_goes_is_one_outage(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.consumer("s") as consumer:
        for _ in range(200):
            for session in cluster.node.live():
                session.drop()
            await env.wait_for(State.RECOVERING)
            await consumer.wait_for(State.OPEN)
            await env.wait_for(State.OPEN)
            await anyio.sleep(3 * GATHER)
        assert len(said(caplog)) < 30
        await anyio.sleep(CALM)
        assert "again after" in said(caplog)[-1]


async def test_leaving_in_the_middle_is_told(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    async with connect(cluster) as env:
        async with env.consumer("s"):
            cluster.node.kill()
            await anyio.sleep(20)
        await anyio.sleep(20)
    assert "is closed. It had been without its broker for 40" in said(caplog)[-1]


async def test_an_end_is_no_loss(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("s")
    async with connect(cluster) as env:
        async with env.consumer("s"), env.publisher("s"):
            await anyio.sleep(1)
        await anyio.sleep(1)
        consumer = await env.consumer("s").__aenter__()
        assert consumer.active
    assert said(caplog) == []


async def test_what_it_is_connected_to(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(cluster):
        (record,) = caplog.records
    assert record.getMessage() == (
        "environment 'flowstream' is connected to node0:5552: scripted 4.0.5, virtual host '/'"
    )
    assert vars(record)["embedded"] is False
    assert SECRET not in caplog.text
