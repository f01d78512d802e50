"""Price CD orders with several processes, on one machine or on many.

The processes share the partitions of the super stream `sales`, and each order's price for one CD
goes to the stream `sales.priced`. deploy/ runs this pipeline.
"""

import json
from decimal import Decimal

from pydantic import BaseModel, Field

from flowstream import DeadLetter, Message, Pipeline, Retry, StreamSink, SuperStreamProducer


class Sale(BaseModel):
    order_id: int
    customer_id: int
    quantity: int = Field(gt=0)
    amount: Decimal


pipeline = Pipeline(
    "sales",
    SuperStreamProducer("sales", single_active=True),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("sales.dead"),
)


@pipeline.processor(concurrency=2)
async def price(message: Message[Sale]) -> bytes:
    sale = message.data
    each = sale.amount / sale.quantity
    return json.dumps({"order_id": sale.order_id, "price": f"{each:.2f}"}).encode()


pipeline.sink("priced", StreamSink("sales.priced"), size=200, batch_timeout=0.5)
