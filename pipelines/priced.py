"""Price CD orders: from the stream `orders` to `orders.priced`, each order once, in order.

A crash repeats no order: the broker drops what it has already. `flowstream run pipelines.priced
--create` creates the stream.
"""

from decimal import Decimal

from pydantic import BaseModel

from flowstream import DeadLetter, Message, Pipeline, StreamProducer, StreamSink
from pipelines.orders import Order


class PricedOrder(BaseModel):
    order_id: int
    customer_id: int
    each: Decimal


pipeline = Pipeline(
    "priced",
    StreamProducer("orders"),
    on_failure=DeadLetter("orders.priced.dead", exactly_once=True),
)


@pipeline.processor()
async def price(message: Message[Order]) -> PricedOrder:
    order = message.data
    if order.quantity <= 0:
        message.fail("quantity must be positive", retry=False)
    each = order.amount / max(order.quantity, 1)
    return PricedOrder(order_id=order.order_id, customer_id=order.customer_id, each=round(each, 2))


pipeline.sink("priced", StreamSink("orders.priced", exactly_once=True), size=500)
