"""Numbers into tables of a database, in processes that are forked to be killed.

    python -m tests.chaos.sunk URL DATABASE

DATABASE is the path of an SQLite file or the URL of a PostgreSQL database. For each line on its
input it forks a process that runs the pipeline, and prints its process id; `fast` runs to the end
of the stream. What is slow, the imports, is done once.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import traceback
from typing import Any

import anyio

from flowstream import (
    Backoff,
    Batch,
    ExactlyOnce,
    Halt,
    Message,
    Pipeline,
    PostgresSink,
    RateLimit,
    Retry,
    SqliteSink,
    StreamProducer,
)

Number = dict[str, int]
STREAM = "numbers"
NAME = "sunk"
RATE = 4000
SECONDS_IDLE = 1.0
SUMS = "CREATE TABLE IF NOT EXISTS sums (rest INTEGER PRIMARY KEY, total BIGINT NOT NULL)"
ADD = (
    "INSERT INTO sums VALUES ({0}, {0}) "
    "ON CONFLICT (rest) DO UPDATE SET total = sums.total + excluded.total"
)
once = ExactlyOnce("sums")


class Totals:
    """A handler with a transaction of its own: it adds, so that a repeat would show."""

    def __init__(self, database: str) -> None:
        self.postgres = "://" in database
        self.database = database
        self._local = threading.local()

    def connection(self) -> Any:
        if not hasattr(self._local, "connection"):
            if self.postgres:
                import psycopg

                self._local.connection = psycopg.connect(self.database)
            else:
                self._local.connection = sqlite3.connect(self.database, timeout=30)
        return self._local.connection

    def create(self) -> None:
        connection = self.connection()
        with connection:
            once.create_table(connection)
            connection.execute(SUMS)
        connection.close()
        del self._local.connection

    def add(self, batch: Batch[Number]) -> None:
        try:
            connection = self.connection()
            if self.postgres:
                with connection.transaction():
                    self._add(connection, batch)
            else:
                with connection:
                    self._add(connection, batch)
        except Exception:
            if hasattr(self._local, "connection"):
                self._local.connection.close()
                del self._local.connection
            raise

    def _add(self, connection: Any, batch: Batch[Number]) -> None:
        statement = ADD.format("%s" if self.postgres else "?")
        for message in once.claim(connection, batch):
            connection.execute(statement, (message.data["n"] % 7, message.data["n"]))


def pipeline_of(database: str, rate: RateLimit | None) -> Pipeline:
    """Each number is in `numbers`, the last one for each rest in `latest`, and added to `sums`."""
    retry = Retry(attempts=20, backoff=Backoff(0.05, maximum=0.5))
    pipeline = Pipeline(
        NAME, StreamProducer(STREAM), retry=retry, on_failure=Halt(), rate_limit=rate,
        commit_every=400, commit_interval=0.1, max_in_flight=2000,
    )  # fmt: skip

    @pipeline.processor
    async def route(message: Message[Number]) -> None:
        if message.data["n"] % 10 == 0:
            message.drop()
        else:
            message.to("all", "latest", "sums")

    def sink(table: str, **options: Any) -> Any:
        made = PostgresSink if "://" in database else SqliteSink
        return made(
            database, table, row=row, create=True, attempts=100,
            backoff=Backoff(0.05, maximum=0.5), **options,
        )  # fmt: skip

    def row(message: Message[Number]) -> dict[str, int]:
        return {"number": message.data["n"], "rest": message.data["n"] % 7}

    columns = {"rest": int, "number": int}
    pipeline.sink("all", sink("numbers", columns=columns), size=50, batch_timeout=0.05,
                  concurrency=3)  # fmt: skip
    pipeline.sink("latest", sink("latest", columns=columns, key="rest"), size=70,
                  batch_timeout=0.05)  # fmt: skip
    totals = Totals(database)
    totals.create()

    @pipeline.batcher("sums", size=40, batch_timeout=0.05, concurrency=2)
    def add(batch: Batch[Number]) -> None:
        totals.add(batch)

    return pipeline


async def live(url: str, database: str, fast: bool) -> None:
    pipeline = pipeline_of(database, None if fast else RateLimit(RATE))
    async with pipeline.start(url=url) as running:
        if fast:
            await running.wait_idle(SECONDS_IDLE)
        else:
            await running.wait()


def main(url: str, database: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                anyio.run(live, url, database, line.strip() == "fast")
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        _, state = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(state), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
