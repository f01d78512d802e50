"""`python -m tests.benchmarks.workers`: what a second worker brings to handlers that compute.

    python -m tests.benchmarks.workers                      on the embedded broker
    python -m tests.benchmarks.workers --broker 4.0         `make brokers` starts it

Each measurement is a `flowstream run --workers N` of its own. Once its workers are ready, messages
are published to the 8 partitions of a super stream; the rate is that from then to the last message.
The broker needs about two seconds of a core to deliver them, so that short runs are too slow with
two workers on two cores.
The numbers of workers take turns. Needs as many idle cores as there are workers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from flowstream.client import Environment
from tests.benchmarks.harness import broker
from tests.brokers.running import Broker
from tests.cli.workers.fleet import Fleet

PARTITIONS = 8
STEPS = 6_000
"""Steps of a loop that a handler computes for each message: about 0.3 ms."""

MODULE = """
import os, time
from flowstream import Message, Pipeline, SuperStreamProducer

diary = open(f"handled.{{os.getpid()}}", "a", buffering=1)
pipeline = Pipeline("{name}", SuperStreamProducer("{name}", single_active=True, offset="first"))

@pipeline.processor()
async def compute(message: Message[bytes]) -> None:
    sum(number * number for number in range({steps}))
    diary.write(f"{{time.time():.6f}}\\n")
"""
LINE = len("1790000000.000000\n")
"""Bytes that a diary has of each message."""


class Computing(Fleet):
    """A fleet whose handlers compute."""

    def write_module(self, text: str = "") -> None:
        (self.folder / "shop.py").write_text(MODULE.format(name=self.name, steps=STEPS))

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        anyio.run(self._delete)

    async def _delete(self) -> None:
        async with Environment(self.broker.url) as environment:
            await environment.delete_super_stream(self.name)

    def count(self) -> int:
        """How many messages were handled. Reading the diaries would take time from the workers."""
        return sum(diary.stat().st_size for diary in self.folder.glob("handled.*")) // LINE

    def times(self) -> list[float]:
        """When each message was handled."""
        return [float(at) for (at,) in self.rows()]


def measure(url: str, workers: int, messages: int) -> float:
    """Messages a second of so many workers."""
    with tempfile.TemporaryDirectory() as name, Computing(_broker(url), Path(name)) as fleet:
        anyio.run(fleet.create, PARTITIONS)
        fleet.start(workers=str(workers))
        fleet.until(lambda: fleet.ready() and len(fleet.readers()) == workers)
        anyio.run(fleet.publish, 0, messages, lambda: anyio.sleep(0))
        published = time.time()
        while fleet.count() < messages:
            time.sleep(0.5)
        after = [at for at in fleet.times() if at > published]
        return len(after) / (max(after) - published)


def _broker(url: str) -> Broker:
    return Broker("measured", (), url)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers", description=__doc__)
    parser.add_argument("--broker", default="embedded", help="3.11 or later; default: embedded")
    parser.add_argument("--workers", type=int, default=2, help="compared with one; default: 2")
    parser.add_argument(
        "--messages", type=int, default=90_000, help="of each run; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    rates: dict[int, list[float]] = {1: [], chosen.workers: []}
    with broker(chosen.broker) as (url, name):
        print(f"{name}, {PARTITIONS} partitions, {chosen.messages:,} messages", flush=True)
        for number in range(chosen.rounds):
            for workers, found in rates.items():
                found.append(measure(url, workers, chosen.messages))
                print(f"round {number + 1}, workers {workers}: {found[-1]:,.0f}/s", flush=True)
    one, many = (statistics.median(found) for found in rates.values())
    print(f"{chosen.workers} workers: {many / one:.2f}x of one ({one:,.0f}/s, {many:,.0f}/s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
