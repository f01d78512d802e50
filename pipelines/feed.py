"""Replay the CDNOW purchase log into the stream `orders`, so that there is something to watch.

FEED_RATE orders a second (500 by default), from the first to the last, and from the first again
for as long as it runs.
"""

import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

from flowstream import IterableProducer, Message, Pipeline, RateLimit, StreamSink

LOG = Path(__file__).parent / "data" / "cdnow_orders.csv.gz"


def purchases() -> Iterator[dict[str, str]]:
    while True:
        with gzip.open(LOG, "rt", newline="") as file:
            yield from csv.DictReader(file)


pipeline = Pipeline(
    "feed",
    IterableProducer(purchases(), stream=LOG.name, threaded=True),
    rate_limit=RateLimit(messages=int(os.environ.get("FEED_RATE", "500"))),
)


@pipeline.processor()
async def encode(message: Message[dict[str, str]]) -> bytes:
    return json.dumps(message.data).encode()


pipeline.sink("orders", StreamSink("orders"), size=100, batch_timeout=0.2)
