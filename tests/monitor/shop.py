"""A shop whose pipeline has a bit of everything: what the screenshots of the live page show.

python -m tests.monitor.shop [PORT]      serves its live page until Ctrl-C
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from flowstream.cli.connection.connect import Connection
from flowstream.cli.dead_letters.live_page import LivePageDeadLetters
from flowstream.client import Environment
from flowstream.connectors import DeadLetter, StreamSink, SuperStreamProducer
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, keep_sampling
from flowstream.pipeline import Batch, Message, Pipeline, Retry
from flowstream.telemetry import Telemetry
from flowstream.testing import broker

RATE = 200
"""Orders a second, on average."""


def declare() -> Pipeline:
    """The pipeline: orders of three partitions, loaded, and the large ones published for audits."""
    pipeline = Pipeline(
        "orders",
        SuperStreamProducer("orders"),
        retry=Retry(attempts=3),
        on_failure=DeadLetter("orders.dead"),
        max_in_flight=4_000,
        commit_interval=1.0,
    )

    @pipeline.processor(concurrency=4, partition_by=lambda m: m.data["customer_id"])
    async def validate(message: Message[dict[str, float]]) -> None:
        await anyio.sleep(0.0028)
        order = message.data
        if order["amount"] <= 0:
            message.fail("amount must be positive", retry=False)
        elif order["customer_id"] == 13:
            message.drop("test customer")
        elif order["customer_id"] == 17 and random.random() < 0.2:
            raise TimeoutError("customer service did not answer within 2 s")
        elif order["amount"] > 180:
            message.to("warehouse", "audit")
        else:
            message.to("warehouse")

    @pipeline.batcher("warehouse", size=200, batch_timeout=0.5)
    async def load(batch: Batch[dict[str, float]]) -> None:
        await anyio.sleep(0.09)

    pipeline.sink("audit", StreamSink("orders.audit"), size=50, batch_timeout=1.0)
    return pipeline


async def _feed(environment: Environment) -> None:
    async with environment.super_stream_publisher(
        "orders", key=lambda body: str(json.loads(body)["customer_id"])
    ) as publisher:
        number = 0
        wave = 1.0
        while True:
            orders = []
            for _ in range(int(RATE / 10 * wave)):
                number += 1
                amount = 0 if number % 1_500 == 0 else random.randint(5, 200)
                order = {
                    "order_id": number,
                    "customer_id": random.randint(1, 300),
                    "amount": amount,
                }
                orders.append(json.dumps(order).encode())
            await publisher.send_many(orders)
            wave = min(max(wave + random.uniform(-0.12, 0.12), 0.6), 1.3)
            await anyio.sleep(0.1)


@asynccontextmanager
async def shop(port: int = 0) -> AsyncIterator[str]:
    """The shop at work; yields the address of its live page."""
    metrics, board = Metrics(), Board()
    telemetry = Telemetry(metrics, board)
    pipeline = declare()
    async with (
        broker() as running,
        Environment(running.url, telemetry=telemetry) as environment,
        anyio.create_task_group() as group,
    ):
        await environment.create_super_stream("orders", partitions=3)
        await environment.create_stream("orders.audit")
        letters = LivePageDeadLetters(
            Connection(running.url), {"orders": "orders.dead"}, frozenset()
        )
        monitor = Monitor(metrics, board, control=True, dead_letters=letters)
        _, port = await group.start(monitor.run, "127.0.0.1", port)
        group.start_soon(keep_sampling, board, metrics)
        group.start_soon(_feed, environment)
        board.expect(pipeline.name)
        async with pipeline.start(environment=environment, telemetry=telemetry) as run:
            board.watch("orders", run.statistics, pipeline)
            yield f"http://127.0.0.1:{port}/"
            _end(group)


def _end(group: TaskGroup) -> None:
    group.cancel_scope.cancel()


async def main() -> None:
    async with shop(int(sys.argv[1]) if sys.argv[1:] else 0) as address:
        print(address, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main)
