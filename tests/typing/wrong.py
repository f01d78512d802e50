"""Declarations that are wrong: checkers must complain of each line with `# wrong`, of no other."""

from __future__ import annotations

from dataclasses import dataclass

from flowstream import (
    Backoff,
    Batch,
    Environment,
    Failure,
    IterableProducer,
    Message,
    Pipeline,
    StreamProducer,
    StreamSink,
)


@dataclass
class Order:
    customer: str


pipeline = Pipeline("orders", IterableProducer([]))

Pipeline("orders")  # wrong
Pipeline("orders", "stream")  # wrong
Pipeline("orders", IterableProducer([]), max_inflight=5)  # wrong
Pipeline("orders", IterableProducer([]), max_in_flight="5")  # wrong
pipeline.configure(drain=3)  # wrong
pipeline.sink("out", "priced")  # wrong
pipeline.sink("out", StreamSink("priced"), processes=True)  # wrong
Backoff(0.1, 2)  # wrong
StreamProducer("orders", offset="earliest")  # wrong
StreamProducer("orders", offset="5")  # wrong


@pipeline.processor  # wrong
async def of_batches(batch: Batch[Order]) -> None: ...


@pipeline.processor()  # wrong
async def of_payloads(order: Order) -> None: ...


@pipeline.processor()  # wrong
async def of_too_much(message: Message[Order], store: object, more: object) -> None: ...


@pipeline.processor()  # wrong
async def of_nothing() -> None: ...


@pipeline.batcher  # wrong
async def of_messages(message: Message[Order]) -> None: ...


@pipeline.batcher("load")  # wrong
async def of_a_list(messages: list[Order]) -> None: ...


@pipeline.prepare  # wrong
async def of_one(message: Message[Order]) -> None: ...


@pipeline.on_failed  # wrong
async def of_errors(error: str, more: int, most: int) -> None: ...


@pipeline.on_failed
async def right(failure: Failure) -> None: ...


def client(environment: Environment) -> None:
    environment.publisher()  # wrong
    environment.publisher("orders", max_unconfirmed="5")  # wrong
    environment.consumer("orders", name="billing")  # wrong
    environment.consumer("orders", on_truncated="ignore")  # wrong
    environment.super_stream_publisher("orders", routing="random")  # wrong


Environment("rabbitmq-stream://localhost", heartbeats=30)  # wrong
