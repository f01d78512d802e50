"""Load CD orders into the warehouse, each order once, whatever dies meanwhile.

Orders without a positive amount in whole cents go to the stream `orders.dead`. The warehouse is an
SQLite file, $ORDERS_WAREHOUSE or ./orders.sqlite3. `flowstream sinks list pipelines.orders` shows
which orders it has.
"""

import os
from datetime import date
from decimal import Decimal
from typing import TypedDict

from pydantic import BaseModel, Field

from flowstream import DeadLetter, Message, Pipeline, Retry, SqliteSink, StreamProducer


class Order(BaseModel):
    order_id: int
    customer_id: int
    date: date
    quantity: int
    amount: Decimal = Field(decimal_places=2)


class OrderRow(TypedDict):
    """An order in the warehouse. Amounts are in cents, so that their sum is exact."""

    stream: str
    offset: int
    order_id: int
    customer_id: int
    date: date
    quantity: int
    cents: int


def row(message: Message[Order]) -> OrderRow:
    order = message.data
    return {
        "stream": message.stream,
        "offset": message.offset,
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "date": order.date,
        "quantity": order.quantity,
        "cents": int(order.amount * 100),
    }


pipeline = Pipeline(
    "orders",
    StreamProducer("orders"),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("orders.dead"),
)


@pipeline.processor(concurrency=4, partition_by=lambda m: m.data.customer_id)
async def validate(message: Message[Order]) -> None:
    if message.data.amount <= 0:
        message.fail("amount must be positive", retry=False)


path = os.environ.get("ORDERS_WAREHOUSE", "orders.sqlite3")
warehouse = SqliteSink(path, "orders", columns=OrderRow, row=row, create=True)
pipeline.sink("load", warehouse, size=500, batch_timeout=1.0)
