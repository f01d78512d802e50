"""Eight processors, partitions by customer, random delays, and a diary of the batch handler.

ORDERS_WAREHOUSE is the diary: a line for every batch that begins or ends, in the order of events,
["begin" or "end", [[OFFSET, CUSTOMER], ...]].
"""

import json
import os
import random

import anyio

from flowstream import Batch, Drop, Message, Pipeline, StreamProducer
from pipelines.orders import Order

pipeline = Pipeline(
    "orders",
    StreamProducer("orders"),
    on_failure=Drop(),
    partition_by=lambda m: m.data.customer_id,
    commit_every=100,
)
chance = random.Random(int(os.environ.get("ORDERS_SEED", "0")))
diary = os.environ.get("ORDERS_WAREHOUSE", os.devnull)


@pipeline.processor(concurrency=8)
async def validate(message: Message[Order]) -> None:
    if chance.random() < 0.1:
        await anyio.sleep(chance.uniform(0, 0.01))


@pipeline.batcher(size=40, batch_timeout=0.1, concurrency=4)
async def load(batch: Batch[Order]) -> None:
    write("begin", batch)
    await anyio.sleep(chance.uniform(0, 0.04))
    write("end", batch)


def write(what: str, batch: Batch[Order]) -> None:
    line = json.dumps([what, [[m.offset, m.data.customer_id] for m in batch.messages]])
    with open(diary, "a") as file:
        file.write(f"{line}\n")
