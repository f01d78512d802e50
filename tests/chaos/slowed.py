"""The orders pipeline with small batches and frequent commits, made slow or made to hang.

ORDERS_DELAY     seconds every batch takes longer
ORDERS_HANG      "process" or "batch": the handler that hangs
ORDERS_HANG_AT   the offset at which it does; it says so by creating the file ORDERS_HUNG
ORDERS_TIMEOUT   the drain_timeout in seconds
"""

import os
import threading
import time
from pathlib import Path

import anyio

from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer
from pipelines import warehouse
from pipelines.orders import Order

DELAY = float(os.environ.get("ORDERS_DELAY", "0"))
HANG = os.environ.get("ORDERS_HANG")
HANG_AT = int(os.environ.get("ORDERS_HANG_AT", "-1"))

pipeline = Pipeline(
    "orders",
    StreamProducer("orders"),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("orders.dead"),
    lifespan=warehouse.opened,
    commit_every=150,
    drain_timeout=float(os.environ.get("ORDERS_TIMEOUT", "25")),
)


def hung() -> None:
    Path(os.environ["ORDERS_HUNG"]).touch()


@pipeline.processor(concurrency=4, partition_by=lambda m: m.data.customer_id)
async def validate(message: Message[Order]) -> None:
    if HANG == "process" and message.offset == HANG_AT:
        hung()
        await anyio.sleep_forever()
    if message.data.amount <= 0:
        message.fail("amount must be positive", retry=False)


@pipeline.batcher(size=50, batch_timeout=0.2, concurrency=2)
def load(batch: Batch[Order], store: warehouse.Warehouse) -> None:
    if HANG == "batch" and any(message.offset == HANG_AT for message in batch.messages):
        hung()
        threading.Event().wait()
    time.sleep(DELAY)
    store.insert(batch.messages)
