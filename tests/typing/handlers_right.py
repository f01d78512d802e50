"""Handlers that are right: mypy and pyright must not complain of any line."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, assert_type

from flowstream import (
    Batch,
    DeadLetter,
    Drop,
    Failure,
    IterableProducer,
    Message,
    Pipeline,
    Slice,
)
from flowstream.pipeline import BatchHandler, FailurePolicy, MessageHandler, SliceHandler


@dataclass
class Order:
    customer: str
    amount: int


@dataclass
class Priced:
    cents: int


class Store:
    async def add(self, orders: list[Order]) -> None: ...


@asynccontextmanager
async def lifespan() -> AsyncIterator[Store]:
    yield Store()


pipeline = Pipeline("orders", IterableProducer([]), lifespan=lifespan)


# -- messages


@pipeline.processor
async def bare(message: Message[Order]) -> None:
    assert_type(message.data, Order)


@pipeline.processor
def bare_def(message: Message[Order]) -> Priced:
    return Priced(message.data.amount)


@pipeline.processor()
async def called(message: Message[Order]) -> Priced | None:
    return None


@pipeline.processor(concurrency=4, timeout=5, partition_by=lambda message: message.data.customer)
async def with_options(message: Message[Order], store: Store) -> None:
    await store.add([message.data])


@pipeline.processor(slices=False, processes=False)
def said_outright(message: Message[Order], store: Store) -> Order:
    return message.data


@pipeline.processor(processes=True, concurrency=2)
def in_processes(message: Message[bytes]) -> bytes:
    return message.data


@pipeline.processor
async def untyped(message: Any) -> Any: ...


@pipeline.processor
async def any_payload(message: Message[Any]) -> None: ...


@pipeline.processor
async def of_two(message: Message[Order | Priced]) -> None: ...


@pipeline.processor
async def with_a_default(message: Message[Order], rate: float = 1.0) -> None: ...


# What is decorated stays what it is, its payload and its resources included.
assert_type(bare_def(Message.new(Order("ann", 1))), Priced)
assert_type(said_outright(Message.new(Order("ann", 1)), Store()), Order)
assert_type(in_processes(Message.new(b"")), bytes)


async def results() -> None:
    assert_type(await called(Message.new(Order("ann", 1))), Priced | None)
    assert_type(await converted(Slice.new(Order("ann", 1))), list[Priced])


class Handlers:
    async def method(self, message: Message[Order]) -> None: ...

    def __call__(self, message: Message[Order]) -> None: ...


def with_rate(rate: float, message: Message[Order]) -> None: ...


pipeline.processor(Handlers().method)
pipeline.processor(timeout=1)(Handlers())
pipeline.processor(functools.partial(with_rate, 1.0))


# -- slices


@pipeline.processor(slices=True)
async def whole(orders: Slice[Order]) -> None:
    assert_type(orders.data, list[Order])


@pipeline.processor(slices=True, concurrency=2, max_demand=500)
async def converted(orders: Slice[Order]) -> list[Priced]:
    return [Priced(order.amount) for order in orders.data]


@pipeline.processor(slices=True)
def in_a_thread(orders: Slice[Order], store: Store) -> tuple[Priced, ...] | None:
    return None


@pipeline.processor(slices=True)
def as_it_is(orders: Slice[Order]) -> Slice[Order]:
    return orders


# -- batches


@pipeline.batcher
async def load(batch: Batch[Order]) -> None:
    assert_type(batch.data, list[Order])


@pipeline.batcher
def load_def(batch: Batch[Order]) -> None: ...


@pipeline.batcher()
def called_def(batch: Batch[Order]) -> Batch[Order]:
    return batch


@pipeline.batcher("large", size=500, max_bytes=1 << 20, batch_timeout=0.5, timeout=30)
async def load_large(batch: Batch[Order], store: Store) -> None: ...


@pipeline.batcher(name="rule", size=(0, lambda message, total: (total > 10, total + 1)))
async def load_by_rule(batch: Batch[Order]) -> None: ...


@pipeline.batcher("processes", processes=True)
def load_in_processes(batch: Batch[bytes]) -> None: ...


assert_type(called_def(Batch.new(Order("ann", 1))), Batch[Order])


# -- hooks


@pipeline.prepare
async def prepare(messages: list[Message[Order]]) -> None:
    assert_type(messages[0].data, Order)


@pipeline.prepare
def prepare_def(messages: list[Message[Order]], store: Store) -> list[Message[Order]]:
    return messages


@pipeline.on_failed
async def on_failed(failure: Failure) -> Drop | None:
    return None


@pipeline.on_failed
def on_failed_def(failure: Failure, store: Store) -> FailurePolicy:
    return DeadLetter("orders.dead")


# -- what a test calls a handler with

assert_type(Message.new(Order("ann", 1)), Message[Order])
assert_type(Message.new(b"", offset=5).data, bytes)
assert_type(Slice.new(1, 2).data, list[int])
assert_type(Batch.new(Order("ann", 1), key="ann"), Batch[Order])
assert_type(called_def(Batch.new(Order("ann", 1))).data, list[Order])


# -- decorators of one's own

T = TypeVar("T")


def traced(handler: Callable[[Message[T]], Awaitable[object]]) -> MessageHandler[T]:
    async def call(message: Message[T]) -> object:
        return await handler(message)

    return call


@pipeline.processor
@traced
async def own(message: Message[Order]) -> None: ...


a_message: MessageHandler[Order] = bare
a_slice: SliceHandler[Order] = converted
a_batch: BatchHandler[Order] = load_large
