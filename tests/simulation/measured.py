"""The same events on a real broker, with real processes: `python -m tests.simulation.measured URL`.

What it prints is in docs/deployment.md, and the times of network.py come from it.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from flowstream import Environment
from tests.cli.command import Started, wait_until
from tests.grafana.prometheus import free_port

MODULE = """
import os, time
from flowstream import Batch, Pipeline, SuperStreamProducer

pipeline = Pipeline("{name}", SuperStreamProducer("{name}", single_active=True))
log = open(f"handled-{{os.getpid()}}", "a", buffering=1)

@pipeline.batcher(size=200, batch_timeout=0.1)
async def load(batch: Batch[bytes]) -> None:
    for origin in batch.origins:
        first, last = origin.offsets[0], origin.offsets[-1]
        log.write(f"{{time.time()}} {{origin.stream}} {{first}} {{last}}\\n")
"""


class Process:
    """A worker: `flowstream run`, and what its metrics say."""

    def __init__(self, folder: Path, url: str) -> None:
        self.port = free_port()
        words = ("run", "measured", f"--http=127.0.0.1:{self.port}")
        self.started = Started(*words, url=url, cwd=folder, fresh=True)

    def metrics(self) -> str:
        try:
            page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5)
            with page:
                text: str = page.read().decode()
        except OSError:
            return ""
        return text

    def sum(self, name: str) -> float:
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, found))

    @property
    def partitions(self) -> float:
        return self.sum("flowstream_active_partitions")

    @property
    def series(self) -> int:
        return sum(line.startswith("flowstream_") for line in self.metrics().splitlines())

    @property
    def connections(self) -> float:
        return self.sum("flowstream_connections")

    @property
    def memory(self) -> float:
        return self.sum("process_resident_memory_bytes") / 2**20


@contextmanager
def publishing(url: str, name: str, rate: int) -> Iterator[None]:
    """A publisher at so many messages a second, until the end of the block."""
    ended = threading.Event()

    async def publish() -> None:
        async with (
            Environment(url) as environment,
            environment.super_stream_publisher(name) as publisher,
        ):
            number, size = 0, max(1, rate // 20)
            while not ended.is_set():
                keys = [str(n) for n in range(number, number + size)]
                await publisher.publish_many([key.encode() for key in keys], keys=keys)
                number += size
                await anyio.sleep(0.05)

    thread = threading.Thread(target=anyio.run, args=(publish,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


Row = tuple[float, str, int, int]


def handled(folder: Path) -> list[Row]:
    """All that was handled: when, of which partition, from which offset to which."""
    rows = []
    for file in folder.glob("handled-*"):
        for line in file.read_text().splitlines():
            words = line.split()
            if len(words) == 4:
                rows.append((float(words[0]), words[1], int(words[2]), int(words[3])))
    return sorted(rows)


def repeated(rows: list[Row]) -> int:
    counts: Counter[tuple[str, int]] = Counter()
    for _, stream, first, last in rows:
        counts.update((stream, offset) for offset in range(first, last + 1))
    return sum(count - 1 for count in counts.values())


def pauses(rows: list[Row], since: float) -> list[float]:
    """For each partition the longest time without a message from then on, in order."""
    last: dict[str, float] = {}
    longest: dict[str, float] = {}
    for moment, stream, _, _ in rows:
        if moment >= since - 1:
            gap = moment - max(last.get(stream, moment), since)
            longest[stream] = max(longest.get(stream, 0.0), gap)
            last[stream] = moment
    return sorted(longest.values())


def measure(url: str, partitions: int, workers: int, rate: int) -> None:
    name = f"measured.{uuid.uuid4().hex[:6]}"

    async def create() -> None:
        async with Environment(url) as environment:
            await environment.create_super_stream(name, partitions=partitions)

    async def remove() -> None:
        async with Environment(url) as environment:
            await environment.delete_super_stream(name)

    anyio.run(create)
    try:
        with tempfile.TemporaryDirectory() as place, publishing(url, name, rate):
            folder = Path(place)
            (folder / "measured.py").write_text(MODULE.format(name=name))
            run(folder, url, partitions, workers)
    finally:
        anyio.run(remove)


def run(folder: Path, url: str, partitions: int, workers: int) -> None:
    running: list[Process] = []

    def load() -> list[float]:
        return sorted(process.partitions for process in running)

    def add() -> None:
        running.append(Process(folder, url))
        wait_until(lambda: sum(load()) == partitions and min(load()) > 0)

    def event(what: str, act: Callable[[], None]) -> None:
        time.sleep(6)  # commits have been made
        before, since = repeated(handled(folder)), time.time()
        act()
        wait_until(lambda: sum(load()) == partitions)
        time.sleep(2)
        rows = handled(folder)
        found = pauses(rows, since)
        middle, most = found[len(found) // 2], found[-1]
        print(
            f"{what}: pause of a partition {middle:.2f} s in the median, {most:.2f} s at most; "
            f"{repeated(rows) - before} repeated; partitions {load()}", flush=True
        )  # fmt: skip

    def kill() -> None:
        victim = running.pop(0)
        victim.started.process.kill()

    def leave() -> None:
        running[0].started.process.send_signal(15)
        assert running.pop(0).started.end().code == 0

    try:
        for _ in range(workers):
            add()
            time.sleep(4)
            newest = running[-1]
            print(
                f"{len(running)} workers: partitions {load()}; the newest has {newest.series} "
                f"series, {newest.connections:.0f} connections, {newest.memory:.0f} MiB", flush=True
            )  # fmt: skip
        event("join", add)
        event("leave", leave)
        event("kill", kill)
    finally:
        for process in running:
            with process.started:
                pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.measured")
    parser.add_argument("url")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000, help="messages a second in all")
    chosen = parser.parse_args()
    measure(chosen.url, chosen.partitions, chosen.workers, chosen.rate)


if __name__ == "__main__":
    main()
