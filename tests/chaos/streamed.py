"""Numbers from a stream to a stream exactly once, in processes that are forked to be killed.

    python -m tests.chaos.streamed URL stream|super

For each line on its input it forks a process that runs the pipeline, and prints its process id.
`fast` runs to the end of the streams; `cut` loses its connections at random moments; `twice` forks
a second process that does the same, until the first one ends. Handlers fail at random.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import anyio

from flowstream import (
    Backoff,
    DeadLetter,
    Message,
    Pipeline,
    RateLimit,
    Retry,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)

Number = dict[str, int]
NAME = "streamed"
SOURCE, TARGET, DEAD = "source", "target", "target.dead"
PARTITIONS = 3
RATE = 4000
SECONDS_IDLE = 1.5
chance = random.Random()


def encode(data: Number) -> list[bytes]:
    """Every seventh number is published twice."""
    return [json.dumps({**data, "part": part}).encode() for part in range(1 + (data["n"] % 7 == 0))]


def pipeline_of(kind: str, fast: bool) -> Pipeline:
    """Of 50 numbers five are dropped, and one becomes a dead letter."""
    many = kind == "super"
    producer: Any = StreamProducer(SOURCE)
    if many:
        producer = SuperStreamProducer(SOURCE, single_active=True)
    pipeline = Pipeline(
        NAME, producer, retry=Retry(attempts=30, backoff=Backoff(0.01, maximum=0.1)),
        on_failure=DeadLetter(DEAD, exactly_once=True),
        rate_limit=None if fast else RateLimit(RATE),
        commit_every=400, commit_interval=0.1, max_in_flight=2000,
    )  # fmt: skip

    @pipeline.processor(concurrency=3)
    async def route(message: Message[Number]) -> None:
        number = message.data["n"]
        if number % 10 == 0:
            message.drop()
        elif number % 50 == 1:
            message.fail("unlucky", retry=False)
        elif chance.random() < 0.01:
            raise ValueError("this time")

    key = "n" if many else None
    sink = StreamSink(TARGET, key=key, encode=encode, exactly_once=True)
    pipeline.sink("all", sink, size=50, batch_timeout=0.05, concurrency=2)
    return pipeline


async def live(url: str, kind: str, how: str) -> None:
    async with pipeline_of(kind, how == "fast").start(url=url) as running:
        if how == "fast":
            await running.wait_idle(SECONDS_IDLE)
            return
        while how == "cut":
            await anyio.sleep(chance.uniform(0.3, 2.0))
            cut()
        await running.wait()


def cut() -> None:
    """Shut down all connections of this process, as a firewall that forgets them."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            connection = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue


def forked(url: str, kind: str, how: str) -> int:
    child = os.fork()
    if not child:
        status = 1
        chance.seed()
        try:
            anyio.run(live, url, kind, how)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def main(url: str, kind: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for line in sys.stdin:
        how = line.strip()
        second = forked(url, kind, "slow") if how == "twice" else 0
        child = forked(url, kind, how)
        print(child, flush=True)
        _, state = os.waitpid(child, 0)
        if second:
            os.kill(second, signal.SIGKILL)
            os.waitpid(second, 0)
        print(os.waitstatus_to_exitcode(state), flush=True)


if __name__ == "__main__":
    assert Path("/proc/self/fd").is_dir()
    main(*sys.argv[1:])
