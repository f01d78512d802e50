"""Load CD orders into PostgreSQL, each order once, whatever dies meanwhile.

The database is $ORDERS_POSTGRES, or that of docker-compose.yml. It needs psycopg: pip install
'flowstream[postgres]'.
"""

import os

from flowstream import DeadLetter, Message, Pipeline, PostgresSink, StreamProducer
from pipelines.orders import Order

DATABASE = "postgresql://flowstream:flowstream@localhost:5432/flowstream"

pipeline = Pipeline(
    "postgres", StreamProducer("orders"), on_failure=DeadLetter("orders.postgres.dead")
)


@pipeline.processor()
async def read(message: Message[Order]) -> None:
    if message.data.amount <= 0:
        message.fail("amount must be positive", retry=False)


url = os.environ.get("ORDERS_POSTGRES", DATABASE)
pipeline.sink("orders", PostgresSink(url, "orders", columns=Order, create=True), size=1000)
