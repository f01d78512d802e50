"""Load CD orders into the warehouse, a batch at a time.

Orders without a positive amount in whole cents go to the stream `orders.dead`. The warehouse is an
SQLite file, $ORDERS_WAREHOUSE or ./orders.sqlite3.
"""

from datetime import date
from decimal import Decimal

from pydantic import BaseModel, Field

from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer
from pipelines import warehouse


class Order(BaseModel):
    order_id: int
    customer_id: int
    date: date
    quantity: int
    amount: Decimal = Field(decimal_places=2)


pipeline = Pipeline(
    "orders",
    StreamProducer("orders"),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("orders.dead"),
    lifespan=warehouse.opened,
)


@pipeline.processor(concurrency=4, partition_by=lambda m: m.data.customer_id)
async def validate(message: Message[Order]) -> None:
    if message.data.amount <= 0:
        message.fail("amount must be positive", retry=False)


@pipeline.batcher(size=500, batch_timeout=1.0)
def load(batch: Batch[Order], store: warehouse.Warehouse) -> None:
    store.insert(batch.messages)
