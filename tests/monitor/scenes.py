"""What the live page looks like when things go well, and when they do not: for its screenshots.

python -m tests.monitor.scenes NAME [PORT]      serves one scene until Ctrl-C

Every scene is a real run on a broker of its own; `at_work` runs them all side by side.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup, TaskStatus

from flowstream.cli.connection.connect import Connection
from flowstream.cli.dead_letters.live_page import LivePageDeadLetters
from flowstream.client import Environment
from flowstream.connectors import DeadLetter, StreamProducer
from flowstream.errors import FlowstreamError
from flowstream.metrics import Metrics
from flowstream.monitor import Board, Monitor, keep_sampling
from flowstream.pipeline import Batch, Halt, Message, Pipeline, Retry
from flowstream.telemetry import Telemetry
from flowstream.testing import broker
from tests.monitor.shop import shop

WAREHOUSE_DOWN = "warehouse.internal:5432 refused the connection"
BACKLOG = 150_000
RATE = 60
"""Orders a second of the scenes that get some."""
LONG = 45.0
"""Seconds after which the broker of `broker_gone` goes, and the order of `halting` comes."""


@dataclass
class Stage:
    """Where a scene plays."""

    environment: Environment
    board: Board
    telemetry: Telemetry
    group: TaskGroup
    letters: dict[str, str]

    async def play(self, pipeline: Pipeline) -> None:
        """Start a pipeline and show it; it may end with an error."""
        self.board.expect(pipeline.name)
        policy = pipeline.options.on_failure
        if isinstance(policy, DeadLetter):
            self.letters[pipeline.name] = policy.stream
        await self.group.start(self._run, pipeline)

    async def _run(self, pipeline: Pipeline, *, task_status: TaskStatus[None]) -> None:
        async with pipeline.start(environment=self.environment, telemetry=self.telemetry) as run:
            self.board.watch(pipeline.name, run.statistics, pipeline)
            task_status.started()
            await run.wait()
            await anyio.sleep_forever()

    async def publish(self, stream: str, orders: list[dict[str, object]]) -> None:
        async with self.environment.publisher(stream) as publisher:
            await publisher.publish_many([json.dumps(order).encode() for order in orders])

    async def feed(self, stream: str, orders: Callable[[int], dict[str, object]]) -> None:
        """Publish RATE orders a second, until there is no broker any more."""
        with suppress(FlowstreamError):
            async with self.environment.publisher(stream) as publisher:
                for start in itertools.count(0, RATE // 10):
                    numbers = range(start, start + RATE // 10)
                    await publisher.publish_many([json.dumps(orders(n)).encode() for n in numbers])
                    await anyio.sleep(0.1)


def order(number: int) -> dict[str, object]:
    return {"id": number, "customer": number % 97, "amount": random.randint(5, 200)}


async def backlog(stage: Stage) -> None:
    """A night's orders wait, and the warehouse takes them more slowly than one would like."""
    await stage.environment.create_stream("orders")
    for start in range(0, BACKLOG, 10_000):
        await stage.publish("orders", [order(start + i) for i in range(10_000)])
    pipeline = Pipeline("orders", StreamProducer("orders"), max_in_flight=2_000)

    @pipeline.processor(concurrency=4)
    async def validate(message: Message[dict[str, int]]) -> None:
        """Takes them all."""

    @pipeline.batcher("warehouse", size=200, batch_timeout=0.5)
    async def load(batch: Batch[dict[str, int]]) -> None:
        await anyio.sleep(0.35)

    await stage.play(pipeline)
    stage.group.start_soon(stage.feed, "orders", order)


async def failing(stage: Stage) -> None:
    """The warehouse is down, and some orders are not what they should be."""
    await stage.environment.create_stream("orders")
    pipeline = Pipeline(
        "orders",
        StreamProducer("orders"),
        retry=Retry(attempts=3),
        on_failure=DeadLetter("orders.dead", max_ratio=None),
    )

    @pipeline.processor(concurrency=4)
    async def validate(message: Message[dict[str, int]]) -> None:
        if message.data["amount"] <= 0:
            message.fail("amount must be positive", retry=False)
        if message.data["customer"] == 13:
            raise KeyError(f"customer {message.data['customer']} is unknown")

    @pipeline.batcher("warehouse", size=20, batch_timeout=0.5)
    async def load(batch: Batch[dict[str, int]]) -> None:
        if random.random() < 0.6:
            raise ConnectionError(WAREHOUSE_DOWN)

    def orders(number: int) -> dict[str, object]:
        return order(number) | ({"amount": 0} if number % 40 == 0 else {})

    await stage.play(pipeline)
    stage.group.start_soon(stage.feed, "orders", orders)


async def halting(stage: Stage) -> None:
    """An order that nobody can read, and a policy that stops for it."""
    await stage.environment.create_stream("orders")
    pipeline = Pipeline("orders", StreamProducer("orders"), on_failure=Halt())

    @pipeline.processor(concurrency=4)
    async def validate(message: Message[dict[str, int]]) -> None:
        if message.data["amount"] < 0:
            raise ValueError(f"order {message.data['id']} has the amount {message.data['amount']}")

    @pipeline.batcher("warehouse", size=100, batch_timeout=0.5)
    async def load(batch: Batch[dict[str, int]]) -> None:
        await anyio.sleep(0.02)

    def orders(number: int) -> dict[str, object]:
        return order(number) | ({"amount": -40} if number == RATE * LONG else {})

    await stage.play(pipeline)
    stage.group.start_soon(stage.feed, "orders", orders)


async def two_pipelines(stage: Stage) -> None:
    """One that reads orders, and one whose stream is empty."""
    await stage.environment.create_stream("orders")
    await stage.environment.create_stream("returns")
    returns = Pipeline("returns", StreamProducer("returns"), on_failure=DeadLetter("returns.dead"))

    @returns.processor()
    async def refund(message: Message[dict[str, int]]) -> None:
        """Has nothing to do."""

    await stage.play(returns)
    orders = Pipeline("orders", StreamProducer("orders"), on_failure=DeadLetter("orders.dead"))

    @orders.processor(concurrency=4)
    async def validate(message: Message[dict[str, int]]) -> None:
        await anyio.sleep(0.02)

    @orders.batcher("warehouse", size=100, batch_timeout=0.5)
    async def load(batch: Batch[dict[str, int]]) -> None:
        await anyio.sleep(0.05)

    await stage.play(orders)
    stage.group.start_soon(stage.feed, "orders", order)


async def broker_gone(stage: Stage) -> None:
    """Orders flow until the broker goes, after LONG seconds."""
    await two_pipelines(stage)


SCENES: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "backlog": backlog,
    "failing": failing,
    "halting": halting,
    "broker_gone": broker_gone,
    "two_pipelines": two_pipelines,
}


@asynccontextmanager
async def scene(name: str, port: int = 0) -> AsyncIterator[str]:
    """A scene at work; yields the address of its live page. "healthy" is the shop's."""
    if name == "healthy":
        async with shop(port) as address:
            yield address
        return
    metrics, board, letters = Metrics(), Board(), dict[str, str]()
    telemetry, gone = Telemetry(metrics, board), anyio.Event()
    async with anyio.create_task_group() as outside:
        url = await outside.start(_serve, gone)
        async with (
            Environment(url, telemetry=telemetry) as environment,
            anyio.create_task_group() as group,
        ):
            reader = LivePageDeadLetters(Connection(url), letters, frozenset())
            monitor = Monitor(metrics, board, control=True, dead_letters=reader)
            _, port = await group.start(monitor.run, "127.0.0.1", port)
            group.start_soon(keep_sampling, board, metrics)
            await SCENES[name](Stage(environment, board, telemetry, group, letters))
            if name == "broker_gone":
                group.start_soon(_after, LONG, gone)
            yield f"http://127.0.0.1:{port}/"
            group.cancel_scope.cancel()
        gone.set()


async def _serve(gone: anyio.Event, *, task_status: TaskStatus[str]) -> None:
    async with broker() as running:
        task_status.started(running.url)
        await gone.wait()


async def _after(seconds: float, event: anyio.Event) -> None:
    await anyio.sleep(seconds)
    event.set()


@asynccontextmanager
async def at_work(names: list[str]) -> AsyncIterator[dict[str, str]]:
    """Scenes side by side; yields the addresses of their pages."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(scene(name)) for name in names}


async def main() -> None:
    async with scene(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 0) as address:
        print(address, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main)
