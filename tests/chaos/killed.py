"""Numbers to two batchers with a joint ack, failures that are tried again, and a diary of it all.

ORDERS_WAREHOUSE is the diary, an SQLite file with a row for every message that a batch handler is
done with, in the order of events. ORDERS_RUN is the number of this run, written beside each;
ORDERS_SEED makes the failures and pauses.
"""

import os
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio.to_thread

from flowstream import Backoff, Batch, Message, Pipeline, Retry, StreamProducer

STREAM = "numbers"
PARTITIONS = 32
MAX_IN_FLIGHT = 2000
PATH = os.environ.get("ORDERS_WAREHOUSE", ":memory:")
RUN = int(os.environ.get("ORDERS_RUN", "0"))
TABLE = """
CREATE TABLE IF NOT EXISTS handled (
    place INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    batcher TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    number INTEGER NOT NULL
)
"""
INDEX = "CREATE INDEX IF NOT EXISTS by_number ON handled (number)"
chance = random.Random(int(os.environ.get("ORDERS_SEED", "0")))


class Diary:
    """Rows are there once `write` has returned, also when the process is killed then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(PATH, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")  # the machine itself goes on
        self._connection.execute(TABLE)
        self._connection.execute(INDEX)
        self._connection.commit()

    def write(self, batcher: str, messages: Sequence[Message[bytes]]) -> None:
        rows = [(RUN, batcher, message.offset, int(message.data)) for message in messages]
        insert = 'INSERT INTO handled (run, batcher, "offset", number) VALUES (?, ?, ?, ?)'
        with self._lock, self._connection:
            self._connection.executemany(insert, rows)

    def close(self) -> None:
        self._connection.close()


@asynccontextmanager
async def opened() -> AsyncIterator[Diary]:
    diary = await anyio.to_thread.run_sync(Diary)
    try:
        yield diary
    finally:
        await anyio.to_thread.run_sync(diary.close)


pipeline = Pipeline(
    "killed",
    StreamProducer(STREAM),
    retry=Retry(attempts=4, backoff=Backoff(initial=0.01)),
    lifespan=opened,
    partition_by=lambda m: int(m.data) % PARTITIONS,
    max_in_flight=MAX_IN_FLIGHT,
    commit_every=100,
    commit_interval=0.2,
)


def fail_at_random(attempt: int, share: float) -> None:
    """The last attempt goes well."""
    if attempt < 4 and chance.random() < share:
        raise OSError("as it happens")


@pipeline.processor(concurrency=8)
async def route(message: Message[bytes]) -> None:
    fail_at_random(message.attempt, 0.02)
    message.to("left", "right")


@pipeline.batcher("left", size=20, batch_timeout=0.05, concurrency=4)
def left(batch: Batch[bytes], diary: Diary) -> None:
    load(batch, diary)


@pipeline.batcher("right", size=50, batch_timeout=0.1, concurrency=2)
def right(batch: Batch[bytes], diary: Diary) -> None:
    load(batch, diary)


def load(batch: Batch[bytes], diary: Diary) -> None:
    time.sleep(chance.uniform(0, 0.01))
    fail_at_random(batch.attempt, 0.05)
    diary.write(batch.batcher, batch.messages)
