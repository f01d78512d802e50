"""A pipeline to which everything happens that dashboards show; see test_real_run.py.

Of the numbers in the super stream `shop`, every 100th is tried twice, fails, is dropped, or does
not decode; 400 is stuck for a while.
"""

import time

import anyio

from flowstream import (
    Batch,
    DeadLetter,
    Message,
    Pipeline,
    RateLimit,
    Retry,
    StreamSink,
    SuperStreamProducer,
)

SUPER_STREAM = "shop"
STREAMS = ("shop.priced", "shop.dead")
STUCK = 400
STUCK_FOR = 3.0
BROKEN = b'{"n": '


def body(n: int) -> bytes:
    """What is published as the nth message."""
    return BROKEN if n % 100 == 11 else b'{"n": %d}' % n


pipeline = Pipeline(
    "shop",
    SuperStreamProducer(SUPER_STREAM, single_active=True),
    retry=Retry(attempts=2),
    on_failure=DeadLetter("shop.dead"),
    rate_limit=RateLimit(messages=5_000),
    commit_interval=0.5,
    stuck_after=1.0,
)


@pipeline.processor(concurrency=4)
async def price(message: Message[dict[str, int]]) -> None:
    n = message.data["n"]
    if n == STUCK:
        await anyio.sleep(STUCK_FOR)
    if n % 100 == 3 and message.attempt == 1:
        raise TimeoutError("the price list does not answer")
    if n % 100 == 5:
        message.fail("it has no price", retry=False)
    if n % 100 == 7:
        message.drop("a test order")
    message.to("load", "priced")


@pipeline.batcher("load", size=50, batch_timeout=0.2)
def load(batch: Batch[dict[str, int]]) -> None:
    time.sleep(0.01)


pipeline.sink("priced", StreamSink("shop.priced"), size=50, batch_timeout=0.2)
