"""Archive CD orders as Parquet files: a file for each month of purchase and hour, each order once.

The files are in $ORDERS_ARCHIVE or ./orders-archive. They need pyarrow: pip install
'flowstream[parquet]'.
"""

import os
from datetime import timedelta

from flowstream import FileSink, Message, Pipeline, StreamProducer
from pipelines.orders import Order


def month(message: Message[Order]) -> dict[str, str]:
    return {"month": f"{message.data.date:%Y-%m}"}


pipeline = Pipeline("archive", StreamProducer("orders"), max_in_flight=360_000)


@pipeline.processor()
async def read(message: Message[Order]) -> None:
    if message.data.amount <= 0:
        message.drop("amount must be positive")


directory = os.environ.get("ORDERS_ARCHIVE", "orders-archive")
pipeline.sink("files", FileSink(directory, roll=timedelta(hours=1), partition_by=month))
