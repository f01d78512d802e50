"""Load CD orders into the warehouse, a batch at a time.

The orders are the CDNOW purchase log (see data/). Those without an amount go to `orders.dead`;
the rest into the SQLite file that ORDERS_WAREHOUSE names (orders.sqlite3 by default). The streams
are `orders` and `orders.dead`; ORDERS_STREAM names another pair.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal

from pydantic import BaseModel

from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer
from pipelines.warehouse import Row, Warehouse

STREAM = os.environ.get("ORDERS_STREAM", "orders")


class Order(BaseModel):
    order_id: int
    customer_id: int
    date: date
    quantity: int
    amount: Decimal


@asynccontextmanager
async def warehouse() -> AsyncIterator[Warehouse]:
    opened = Warehouse(os.environ.get("ORDERS_WAREHOUSE", "orders.sqlite3"))
    try:
        yield opened
    finally:
        opened.close()


pipeline = Pipeline(
    "orders",
    StreamProducer(STREAM),
    retry=Retry(attempts=3),
    on_failure=DeadLetter(f"{STREAM}.dead"),
    lifespan=warehouse,
)


@pipeline.processor(concurrency=4, partition_by=lambda m: m.data.customer_id)
async def validate(message: Message[Order]) -> None:
    if message.data.amount <= 0:
        message.fail("amount must be positive", retry=False)


@pipeline.batcher(size=500, timeout=1.0)
def load(batch: Batch[Order], warehouse: Warehouse) -> None:
    warehouse.insert(Row(m.stream, m.offset, **m.data.model_dump()) for m in batch.messages)
