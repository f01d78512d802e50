"""A run whose broker goes and comes back goes on, and says what became of its partitions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskStatus

from flowstream import (
    DeadLetter,
    Environment,
    Failure,
    Halt,
    Message,
    Pipeline,
    StreamProducer,
    SuperStreamProducer,
)
from flowstream.backoff import Backoff
from flowstream.broker import Broker
from flowstream.client import State
from flowstream.monitor import Board
from flowstream.pipeline import RunningPipeline
from flowstream.pipeline.stages import source
from flowstream.telemetry import Telemetry
from tests.support.reading import numbers, until

pytestmark = pytest.mark.anyio

AGAIN = Backoff(0.05, maximum=0.1)


@asynccontextmanager
async def group_member(
    environment: Environment, telemetry: Telemetry
) -> AsyncIterator[RunningPipeline]:
    """A run that has handled and stored ten messages of `orders`, as the one member of a group."""
    await environment.create_super_stream("orders", partitions=1)
    async with environment.publisher("orders-0") as publisher:
        await publisher.publish_many(numbers(10))
    producer = SuperStreamProducer("orders", single_active=True)
    pipeline = Pipeline("shop", producer, commit_interval=0.05)

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    async with pipeline.start(environment=environment, telemetry=telemetry) as running:
        await until(lambda: running.statistics().settled == {"ok": 10})
        await until(lambda: [it.committed for it in running.statistics().partitions] == [9])
        yield running


async def serve(
    data: Path, port: int, gone: anyio.Event, *, task_status: TaskStatus[Broker]
) -> None:
    async with Broker(port=port, data=data) as broker:
        task_status.started(broker)
        await gone.wait()


@pytest.mark.medium
@pytest.mark.parametrize("more", [0, 10], ids=["stored", "being-stored"])
async def test_the_only_member_of_a_group_gets_its_partition_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(source, "LOST_GRACE", 0.5)
    caplog.set_level(logging.INFO, "flowstream")
    board = Board()
    telemetry = Telemetry(board)
    board.expect("shop")
    async with anyio.create_task_group() as brokers:
        gone, end = anyio.Event(), anyio.Event()
        first = await brokers.start(serve, tmp_path, 0, gone)
        async with (
            Environment(first.url, telemetry=telemetry, backoff=AGAIN) as environment,
            group_member(environment, telemetry) as running,
        ):
            board.watch("shop", running.statistics)
            async with environment.publisher("orders-0") as publisher:
                await publisher.publish_many(numbers(more))
            await until(lambda: running.statistics().settled == {"ok": 10 + more})
            gone.set()
            await environment.wait_for(State.RECOVERING)
            await until(lambda: "orders-0 left this process, its connection is" in caplog.text)
            assert board.snapshot()["pipelines"][0]["elsewhere"] == []
            await brokers.start(serve, tmp_path, first.port, end)
            await environment.wait_for(State.OPEN)
            async with environment.publisher("orders-0") as publisher:
                await publisher.publish_many(numbers(5))
            await until(lambda: running.statistics().settled["ok"] >= 15 + more)
            running.stop()
            result = await running.wait()
        end.set()
    assert result.error is None
    assert "handed over" not in caplog.text
    assert "left this process: its connection is lost" in str(board.events.newest())


@pytest.mark.medium
async def test_dead_letters_that_are_opened_while_the_broker_is_away_wait_for_it(
    tmp_path: Path,
) -> None:
    """The policy of a message is opened at its first failure, and that halted the run."""
    async with anyio.create_task_group() as brokers:
        gone, end = anyio.Event(), anyio.Event()
        first = await brokers.start(serve, tmp_path, 0, gone)
        async with Environment(first.url, backoff=AGAIN) as environment:
            await environment.create_stream("orders")
            async with environment.publisher("orders") as publisher:
                await publisher.publish_many(numbers(1))
            pipeline = Pipeline("shop", StreamProducer("orders"), on_failure=Halt())

            @pipeline.processor
            async def handle(message: Message[dict[str, int]]) -> None:
                if message.stream == "pushed":
                    message.fail("no order")

            @pipeline.on_failed
            async def bury(failure: Failure) -> DeadLetter:
                return DeadLetter("orders.dead")

            async with pipeline.start(environment=environment) as running:
                await until(lambda: running.statistics().settled == {"ok": 1})
                gone.set()
                await environment.wait_for(State.RECOVERING)
                await running.push([b"{}"])
                await until(lambda: running.statistics().failed == 1)
                await brokers.start(serve, tmp_path, first.port, end)
                await until(lambda: running.statistics().settled == {"ok": 1, "dead_lettered": 1})
            assert await environment.stream_exists("orders.dead")
        end.set()
