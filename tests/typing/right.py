"""Declarations that are right: mypy and pyright must not complain of any line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from flowstream import (
    Backoff,
    Batch,
    DeadLetter,
    Drop,
    Environment,
    Failure,
    IterableProducer,
    Message,
    Pipeline,
    RateLimit,
    Retry,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.client import Consumer, Publisher
from flowstream.pipeline import Slice


@dataclass
class Order:
    customer: str
    amount: int


class Store:
    async def add(self, orders: list[Order]) -> None: ...


@asynccontextmanager
async def lifespan() -> AsyncIterator[Store]:
    yield Store()


pipeline = Pipeline(
    "orders",
    StreamProducer("orders", offset=timedelta(hours=1), credit=20),
    retry=Retry(attempts=3, backoff=Backoff(0.1, maximum=5)),
    on_failure=DeadLetter("orders.dead"),
    rate_limit=RateLimit(messages=100),
    lifespan=lifespan,
    partition_by=lambda message: message.data.customer,
)
Pipeline(name="named", producer=IterableProducer([1, 2]), on_failure=Drop())
StreamProducer("orders", offset="next")
Pipeline("parts", SuperStreamProducer("orders", single_active=True))


@pipeline.processor
async def one(message: Message[Order]) -> None:
    assert_type(message.data, Order)


@pipeline.processor(concurrency=4, timeout=5)
def with_resources(message: Message[Order], store: Store) -> Order:
    return message.data


@pipeline.processor(slices=True)
async def whole(slice: Slice[Order]) -> None: ...


@pipeline.processor()
async def untyped(message: Any) -> None: ...


@pipeline.batcher
async def load(batch: Batch[Order]) -> None: ...


@pipeline.batcher("large", size=500, max_bytes=1 << 20, batch_timeout=0.5, timeout=30)
def load_large(batch: Batch[Order], store: Store) -> None: ...


@pipeline.batcher("own rule", size=(0, lambda message, total: (total > 10, total + 1)))
async def load_by_rule(batch: Batch[Order]) -> None: ...


@pipeline.prepare
async def prepare(messages: list[Message[Order]]) -> None: ...


@pipeline.on_failed
async def on_failed(failure: Failure) -> Drop | None:
    return None


pipeline.sink("out", StreamSink("priced", key="customer"), size=10, batch_timeout=0.1)
pipeline.configure(max_in_flight=2000, drain_timeout=50)


async def client() -> None:
    async with Environment("rabbitmq-stream://localhost", heartbeat=30) as environment:
        publisher = environment.publisher("orders", max_unconfirmed=100)
        consumer = environment.consumer(stream="orders", offset="first", reference="billing")
        assert_type(publisher, Publisher)
        assert_type(consumer, Consumer)
        environment.super_stream_publisher("orders", routing="key")
        environment.super_stream_consumer("orders", refresh=5)


assert_type(one(Message.__new__(Message)) is None, bool)
