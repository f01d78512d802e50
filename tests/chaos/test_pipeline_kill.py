"""Random kills of a pipeline's connections and of its process, while messages keep coming.

CHAOS_SECONDS is how long, CHAOS_SEED makes the moments and kinds of the kills.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

import anyio
import pytest

from flowstream import Environment
from tests.brokers.running import Broker
from tests.chaos.conftest import Run, Runner
from tests.chaos.killed import MAX_IN_FLIGHT, PARTITIONS, STREAM
from tests.chaos.orders import committed, wait_for
from tests.chaos.seeds import new_seed

SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
KILLS = 2
"""Of the process, at least."""
RATE = 500
"""Messages published a second."""
PATIENCE = 60.0
REPEATS = 2 * MAX_IN_FLIGHT
"""After a kill: what was in flight, and what was settled since the last commit or beyond an
unsettled message. On a busy machine the latter two are some hundred."""
BATCHERS = ("left", "right")
CLIENT = "flowstream killed"
"""What the names of the pipeline's connections begin with; those of the publisher do not."""
Row = tuple[int, str, int, int]
"""Run, batcher, number, offset. Offsets have gaps: the broker gives some to what it stores."""


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
def test_nothing_is_missing_and_what_repeats_is_bounded_by_what_was_in_flight(
    broker: Broker, runner: Runner
) -> None:
    seed = new_seed()
    begin = time.monotonic()
    with published(runner.url) as source:
        chaos = Chaos(broker, runner, source, random.Random(seed))
        while chaos.run < KILLS or time.monotonic() - begin < SECONDS:
            chaos.live_and_be_killed()
    with runner("killed", "--until-idle", "1", "--json", run=chaos.run) as run:
        done = run.end(PATIENCE)

    assert done.code == 0, done.err
    rows = chaos.diary.rows()
    repeats = check_each_run(rows, chaos.commits)
    print(
        f"{broker.name}: {time.monotonic() - begin:.0f} s, {source.sent} messages, "
        f"{chaos.run} kills of the process, {chaos.closed} of connections; "
        f"repeated: {sum(repeats)}, at most {max(repeats)} after a kill: {repeats}"
    )
    assert chaos.closed or broker.management is None
    for batcher in BATCHERS:
        numbers = {number for _, name, number, _ in rows if name == batcher}
        assert numbers == set(range(source.sent)), f"{batcher}: messages are missing"
    offsets = {number: offset for _, _, number, offset in rows}
    assert chaos.commits == sorted(chaos.commits)
    assert chaos.committed() == offsets[source.sent - 1]
    (result,) = done.json
    uncommitted = sum(offset > chaos.commits[-1] for offset in offsets.values())
    assert result["handled"] == uncommitted, "resumed behind the committed offset"


def check_each_run(rows: list[Row], commits: list[int]) -> list[int]:
    """How much each run repeated of those before it, within the bound.

    In itself no run handles a message twice, whatever connections it lost, and it keeps the order
    of each partition. It begins behind what was committed before it.
    """
    handled: dict[tuple[int, str], list[int]] = defaultdict(list)
    first: dict[int, int] = {}
    for run, batcher, number, offset in rows:
        handled[run, batcher].append(number)
        first[run] = min(offset, first.get(run, offset))
    before: dict[str, set[int]] = defaultdict(set)
    repeats = []
    for run, commit in enumerate([-1, *commits]):
        assert first.get(run, commit + 1) > commit, f"run {run} repeats what is committed"
        again = 0
        for batcher in BATCHERS:
            numbers = handled[run, batcher]
            assert len(numbers) == len(set(numbers)), f"run {run} repeats what it did itself"
            assert in_order(numbers), f"run {run}, {batcher}: a partition is out of order"
            again = max(again, len(before[batcher].intersection(numbers)))
            before[batcher].update(numbers)
        repeats.append(again)
    assert max(repeats) <= REPEATS, repeats
    return repeats[1:]


def in_order(numbers: list[int]) -> bool:
    """Within each partition."""
    last: dict[int, int] = {}
    for number in numbers:
        if last.get(number % PARTITIONS, -1) > number:
            return False
        last[number % PARTITIONS] = number
    return True


class Chaos:
    """Runs the pipeline and kills it, over and over; `commits` has the offset after each kill."""

    def __init__(
        self, broker: Broker, runner: Runner, source: Source, chance: random.Random
    ) -> None:
        self.run = 0
        self.closed = 0
        self.commits: list[int] = []
        self.diary = Reader(runner.warehouse.path)
        self._broker = broker
        self._runner = runner
        self._source = source
        self._chance = chance

    def live_and_be_killed(self) -> None:
        """One in five runs is killed at any moment of its start, the others while they work."""
        seed = self._chance.randrange(1 << 32)
        since = time.time()
        with self._runner("killed", run=self.run, seed=seed) as run:
            if self.run and self._chance.random() < 0.2:
                moment = self._chance.uniform(0, 1.5)
            else:
                self._live(run, since)
                moment = self._chance.uniform(0, 0.5)
            time.sleep(moment)  # the random moment itself; nothing is waited for
            assert run.alive(), run.end().err
            run.signal(signal.SIGKILL)
            assert run.end().code == -signal.SIGKILL
        self.run += 1
        self.commits.append(self.committed())

    def _live(self, run: Run, since: float) -> None:
        """Until it works, and then through some losses of connections."""
        handled = self.diary.last
        self._wait(run, lambda: self.diary.last > handled)
        if self._broker.management is None:
            return
        for _ in range(self._chance.choice((0, 0, 1, 2, 3)) if self.closed else 1):
            self._wait(run, lambda: self._close_connections(since), every=0.25)
            if self._chance.random() < 0.7:  # the others are hit, or killed, while they recover
                self._catch_up(run)

    def _catch_up(self, run: Run) -> None:
        last = self._source.sent - 1
        self._wait(run, lambda: self.diary.last >= last)

    def _wait(self, run: Run, condition: Callable[[], Any], every: float = 0.05) -> None:
        wait_for(lambda: condition() or not run.alive(), PATIENCE, every)
        assert run.alive(), run.end().err

    def _close_connections(self, since: float) -> int:
        """Some of those of the run, if the management knows of any; how many."""
        vhost = urlsplit(self._runner.url).path.removeprefix("/")
        known = [
            it["name"]
            for it in self._broker.api("GET", f"vhosts/{vhost}/connections")
            if it.get("client_properties", {}).get("connection_name", "").startswith(CLIENT)
            and it.get("connected_at", 0)
            >= since * 1000  # those of the last run are not gone at once
        ]
        closed = 0
        for name in self._chance.sample(known, self._chance.randint(1, len(known)) if known else 0):
            try:
                self._broker.api("DELETE", f"connections/{quote(name, safe='')}")
            except HTTPError as error:
                error.close()
                if error.code != 404:  # it has just been closed
                    raise
            else:
                closed += 1
        self.closed += closed
        return closed

    def committed(self) -> int:
        """-1: nothing."""
        offset = committed(self._runner.url, "killed", STREAM)
        return -1 if offset is None else offset


class Reader:
    """The diary, read from outside while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _ask(self, query: str) -> list[Any]:
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path, timeout=20)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                return []
            return connection.execute(query).fetchall()

    @property
    def last(self) -> int:
        """The highest number handled; -1: none."""
        found = self._ask("SELECT max(number) FROM handled")
        return -1 if not found or found[0][0] is None else int(found[0][0])

    def rows(self) -> list[Row]:
        """In the order of events."""
        return self._ask('SELECT run, batcher, number, "offset" FROM handled ORDER BY place')


class Source:
    """Publishes 0, 1, 2, ... at a steady rate until it is told to stop; `sent` is the next."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self.stop = threading.Event()
        self._url = url

    async def publish(self) -> None:
        async with (
            Environment(self._url, name="source") as environment,
            environment.publisher(STREAM) as publisher,
        ):
            begin = anyio.current_time()
            while not self.stop.is_set():
                due = int((anyio.current_time() - begin) * RATE) + 1
                await publisher.send_many([b"%d" % n for n in range(self.sent, due)])
                self.sent = max(self.sent, due)
                await anyio.sleep(0.02)
            await publisher.flush()


async def create(url: str) -> None:
    async with Environment(url) as environment:
        await environment.create_stream(STREAM)


@contextmanager
def published(url: str) -> Iterator[Source]:
    """Publishes beside the body; all is confirmed afterwards."""
    anyio.run(create, url)
    source = Source(url)
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(anyio.run, source.publish)
        try:
            yield source
        finally:
            source.stop.set()
        publishing.result(PATIENCE)
