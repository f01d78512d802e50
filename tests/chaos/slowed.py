"""The orders pipeline with small batches and frequent commits, made slow or made to hang.

ORDERS_DELAY     seconds every batch takes longer
ORDERS_HANG      "process" or "batch": the handler that hangs
ORDERS_HANG_AT   the offset at which it does; it says so by creating the file ORDERS_HUNG
ORDERS_TIMEOUT   the drain_timeout in seconds
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from flowstream import DeadLetter, Message, Pipeline, Retry, SqliteSink, StreamProducer
from flowstream.connectors.sql.sqlite import SqliteDatabase
from flowstream.connectors.sql.transaction import Row
from pipelines import orders
from pipelines.orders import Order, OrderRow

DELAY = float(os.environ.get("ORDERS_DELAY", "0"))
HANG = os.environ.get("ORDERS_HANG")
HANG_AT = int(os.environ.get("ORDERS_HANG_AT", "-1"))

pipeline = Pipeline(
    "orders",
    StreamProducer("orders"),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("orders.dead"),
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


class SlowDatabase(SqliteDatabase):
    def begin(self) -> None:
        time.sleep(DELAY)  # before the transaction, in which another worker would have to wait
        super().begin()

    def insert(self, rows: Sequence[Row], *, apart: bool) -> None:
        offset = [*OrderRow.__annotations__].index("offset")
        if HANG == "batch" and any(row[offset] == HANG_AT for row in rows):
            hung()
            threading.Event().wait()
        super().insert(rows, apart=apart)


class SlowSink(SqliteSink):
    def connect(self) -> SqliteDatabase:
        return SlowDatabase(self.path, self.table, self.columns, self.key)


warehouse = SlowSink(orders.path, "orders", columns=OrderRow, row=orders.row, create=True)
pipeline.sink("load", warehouse, size=50, batch_timeout=0.2, concurrency=2)
