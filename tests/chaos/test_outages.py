"""A broker that cannot be reached, on each real one: the page, readiness, two log records."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.backoff import Backoff
from flowstream.client import Address, Environment, State
from flowstream.connectors import SuperStreamProducer
from flowstream.monitor import Board
from flowstream.monitor.health import readiness
from flowstream.pipeline import Message, Pipeline
from flowstream.telemetry import Telemetry
from tests.brokers.running import Broker
from tests.chaos.proxy import Proxy, proxied
from tests.integration.test_client_consuming import create_super_stream

pytestmark = [pytest.mark.anyio, pytest.mark.chaos]

PATIENCE = 60.0


@asynccontextmanager
async def watched(broker: Broker, stream: str) -> AsyncIterator[tuple[Environment, Proxy, Board]]:
    """An environment behind a proxy, with a super stream of three partitions, and its board."""
    board = Board()
    async with proxied(broker.host, broker.port) as proxy:
        here = Address("localhost", proxy.port)
        options: dict[str, Any] = {
            "address_resolver": lambda _: here,
            "name": f"flowstream {stream}",
        }
        url = f"rabbitmq-stream://guest:guest@localhost:{proxy.port}/%2f"
        async with Environment(
            url, telemetry=Telemetry(board), backoff=Backoff(0.1, maximum=0.5), **options
        ) as env:
            await create_super_stream(env, broker, stream, 3)
            try:
                yield env, proxy, board
            finally:
                proxy.refusing = False


async def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    with anyio.fail_after(seconds):
        while not holds():
            await anyio.sleep(0.02)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        each.getMessage() for each in caplog.records
        if each.name == "flowstream.client" and each.levelno >= logging.INFO
    ]  # fmt: skip


async def test_a_pipeline_and_a_publisher_lose_their_broker(
    rabbitmq: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flowstream")
    pipeline = Pipeline(stream_name, SuperStreamProducer(stream_name, single_active=False))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    async with watched(rabbitmq, stream_name) as (env, proxy, board):
        board.expect(stream_name)
        publisher = env.super_stream_publisher(stream_name, key=lambda body: body.decode())
        async with (
            publisher,
            pipeline.start(environment=env, telemetry=env.telemetry) as running,
        ):
            board.watch(stream_name, running.statistics)
            await publisher.publish_many([b"%d" % number for number in range(100)])
            await until(lambda: running.statistics().settled == {"ok": 100})
            assert all(check.ok for check in readiness(board.health()))
            caplog.clear()
            proxy.refusing = True
            proxy.reset_all()
            await env.wait_for(State.RECOVERING)
            await until(lambda: f"the consumers of '{stream_name}-0'" in str(board.losses()), 2)
            assert len(board.snapshot()["losses"]) == 1
            await until(lambda: not all(check.ok for check in readiness(board.health())), 4)
            await anyio.sleep(1)
            (lost,) = said(caplog)
            assert f"environment 'flowstream {stream_name}' lost its broker: " in lost
            assert f"The consumers of {stream_name}-0, " in lost
            proxy.refusing = False
            await until(lambda: len(said(caplog)) == 2)
            assert "is connected to its broker again after " in said(caplog)[1]
            assert all(check.ok for check in readiness(board.health()))
            assert board.snapshot()["losses"] == []
            await publisher.publish_many([b"%d" % number for number in range(100)])
            await until(lambda: running.statistics().settled == {"ok": 200})
            assert len(said(caplog)) == 2


async def test_one_partition_is_gone(
    rabbitmq: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its stream is deleted and made again: what its users see of it is what a lost leader is."""
    partition = f"{stream_name}-1"
    async with watched(rabbitmq, stream_name) as (env, _, board):
        consumer = env.super_stream_consumer(stream_name)
        async with consumer, env.publisher(partition) as publisher:
            caplog.clear()
            await env.delete_stream(partition)
            await publisher.wait_for(State.RECOVERING)
            await until(board.losses, 2)
            await until(lambda: said(caplog), 5)
            (lost,) = said(caplog)
            assert f"lost the node that serves {partition}: the stream moved or was deleted" in lost
            assert f"The consumer of {partition} and the publisher of {partition} wait." in lost
            assert env.state is State.OPEN
            await env.create_stream(partition)
            await until(lambda: len(said(caplog)) == 2)
            assert f"is connected to the node that serves {partition} again" in said(caplog)[1]
            assert board.losses() == []


async def test_a_publisher_alone_loses_its_broker(
    rabbitmq: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        watched(rabbitmq, stream_name) as (env, proxy, board),
        env.publisher(f"{stream_name}-0") as publisher,
    ):
        await publisher.publish(b"before")
        caplog.clear()
        proxy.refusing = True
        proxy.reset_all()
        await publisher.wait_for(State.RECOVERING)
        await until(lambda: "the publisher of" in str(board.losses()), 2)
        await publisher.send(b"meanwhile")
        await until(lambda: said(caplog), 5)
        (lost,) = said(caplog)
        assert f"lost its broker: localhost:{proxy.port} closed the connection" in lost
        assert f"The publisher of {stream_name}-0 waits." in lost
        proxy.refusing = False
        await publisher.flush()
        await until(lambda: len(said(caplog)) == 2)
        assert said(caplog)[1].endswith(f"the publisher of {stream_name}-0 continues")
