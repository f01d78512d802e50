"""Handlers that are wrong: checkers must complain of each line with `# wrong`, of no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from flowstream import Batch, Failure, IterableProducer, Message, Pipeline, Slice
from flowstream.pipeline import BatchHandler, MessageHandler, SliceHandler


@dataclass
class Order:
    customer: str


class Store: ...


pipeline = Pipeline("orders", IterableProducer([]))


# -- messages: the wrong parameter


@pipeline.processor  # wrong
async def of_batches(batch: Batch[Order]) -> None: ...


@pipeline.processor  # wrong
def of_slices(slice: Slice[Order]) -> None: ...


@pipeline.processor  # wrong
async def of_a_list(messages: list[Message[Order]]) -> None: ...


@pipeline.processor()  # wrong
async def of_payloads(order: Order) -> None: ...


@pipeline.processor()  # wrong
def of_payloads_def(order: Order) -> Order:
    return order


@pipeline.processor(concurrency=2)  # wrong
async def resources_first(store: Store, message: Message[Order]) -> None: ...


@pipeline.processor(slices=False)  # wrong
async def of_slices_too(slice: Slice[Order]) -> None: ...


# -- messages: too few parameters, or too many


@pipeline.processor  # wrong
async def of_nothing() -> None: ...


@pipeline.processor(timeout=1)  # wrong
def of_nothing_def() -> None: ...


@pipeline.processor()  # wrong
async def of_too_much(message: Message[Order], store: Store, more: object) -> None: ...


@pipeline.processor()  # wrong
async def of_a_keyword(message: Message[Order], *, store: Store) -> None: ...


@pipeline.processor(processes=True)  # wrong
def resources_in_a_process(message: Message[Order], store: Store) -> None: ...


# -- slices


@pipeline.processor(slices=True)  # wrong
async def takes_a_message(message: Message[Order]) -> None: ...


@pipeline.processor(slices=True)  # wrong
def takes_a_message_def(message: Message[Order]) -> list[Order]:
    return [message.data]


@pipeline.processor(slices=True)  # wrong
async def takes_a_batch(batch: Batch[Order]) -> None: ...


@pipeline.processor(slices=True)  # wrong
async def takes_a_list(orders: list[Order]) -> None: ...


@pipeline.processor(slices=True)  # wrong
async def takes_nothing() -> None: ...


@pipeline.processor(slices=True)  # wrong
async def takes_too_much(slice: Slice[Order], store: Store, more: object) -> None: ...


@pipeline.processor(slices=True)  # wrong
async def returns_one(slice: Slice[Order]) -> Order:
    return slice.data[0]


@pipeline.processor(slices=True)  # wrong
def counts(slice: Slice[Order]) -> int:
    return len(slice)


@pipeline.processor(slices=True)  # wrong
def iterates(slice: Slice[Order]) -> Iterator[Order]:
    return iter(slice.data)


@pipeline.processor(slices=True)  # wrong
async def yields(slice: Slice[Order]) -> AsyncIterator[Order]:
    yield slice.data[0]


pipeline.processor(slices=True, processes=True)  # wrong


# -- batches


@pipeline.batcher  # wrong
async def of_messages(message: Message[Order]) -> None: ...


@pipeline.batcher  # wrong
def of_messages_def(message: Message[Order]) -> None: ...


@pipeline.batcher("load")  # wrong
async def of_payload_lists(orders: list[Order]) -> None: ...


@pipeline.batcher("load")  # wrong
async def of_one_slice(slice: Slice[Order]) -> None: ...


@pipeline.batcher(size=10)  # wrong
async def of_no_batch() -> None: ...


@pipeline.batcher()  # wrong
async def of_too_many(batch: Batch[Order], store: Store, more: object) -> None: ...


@pipeline.batcher  # wrong
async def returns_data(batch: Batch[Order]) -> list[Order]:
    return batch.data


@pipeline.batcher("load")  # wrong
def returns_a_number(batch: Batch[Order]) -> int:
    return len(batch)


@pipeline.batcher("load", processes=True)  # wrong
async def async_in_a_process(batch: Batch[Order]) -> None: ...


@pipeline.batcher("load", processes=True)  # wrong
def store_in_a_process(batch: Batch[Order], store: Store) -> None: ...


# -- hooks


@pipeline.prepare  # wrong
async def of_one(message: Message[Order]) -> None: ...


@pipeline.prepare  # wrong
async def of_data(orders: list[Order]) -> None: ...


@pipeline.prepare  # wrong
async def prepares_data(messages: list[Message[Order]]) -> list[Order]:
    return [message.data for message in messages]


@pipeline.on_failed  # wrong
async def of_errors(error: Exception) -> None: ...


@pipeline.on_failed  # wrong
async def of_more(failure: Failure, more: int, most: int) -> None: ...


@pipeline.on_failed  # wrong
async def answers(failure: Failure) -> bool:
    return True


@pipeline.on_failed  # wrong
def names_the_class(failure: Failure) -> type[object]:
    return Exception


# -- the wrong payload


@pipeline.processor
async def of_orders(message: Message[Order]) -> None: ...


@pipeline.processor(slices=True)
async def of_order_slices(slice: Slice[Order]) -> None: ...


@pipeline.batcher
async def of_order_batches(batch: Batch[Order]) -> None: ...


of_orders(Message.new("text"))  # wrong
of_order_slices(Slice.new("text"))  # wrong
of_order_batches(Batch.new("text"))  # wrong
a_message: MessageHandler[str] = of_orders  # wrong
a_slice: SliceHandler[str] = of_order_slices  # wrong
a_batch: BatchHandler[str] = of_order_batches  # wrong
