"""`kill -9` at random moments while rows are written, of the process and of the database server.

CHAOS_KILLS is how many kills of the process, CHAOS_SEED makes the moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream import Environment
from tests.brokers.running import Broker
from tests.chaos.nursery import Nursery
from tests.chaos.orders import place_of_its_own, wait_for
from tests.chaos.seeds import new_seed
from tests.chaos.sunk import NAME, STREAM
from tests.support.postgres import Postgres

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
KILLS_ON_REAL_BROKERS = 3
NUMBERS = 2000 * KILLS
LIFE = 0.4
"""Seconds after its first row that a process lives, at most."""

Ask = Callable[[str], list[Any]]


async def publish(url: str) -> None:
    async with Environment(url) as environment:
        await environment.create_stream(STREAM)
        async with environment.publisher(STREAM) as publisher:
            await publisher.publish_many([json.dumps({"n": n}).encode() for n in range(NUMBERS)])


@contextmanager
def processes(broker: Broker, database: str, folder: Path) -> Iterator[Nursery]:
    with place_of_its_own(broker) as url:
        anyio.run(publish, url)
        nursery = Nursery("tests.chaos.sunk", url, database, errors=folder / "errors")
        try:
            yield nursery
        finally:
            nursery.close()


def live_and_be_killed(nursery: Nursery, ask: Ask, chance: random.Random) -> int:
    """One in five is killed at any moment of its start, the others while they write."""
    process = nursery.start()
    if chance.random() < 0.2:
        moment = chance.uniform(0, 0.5)
    else:
        writes_more(ask)
        moment = chance.uniform(0, LIFE)
    time.sleep(moment)  # the random moment itself; nothing is waited for
    os.kill(process, signal.SIGKILL)
    assert nursery.end() == -signal.SIGKILL
    return rows(ask)


def writes_more(ask: Ask) -> None:
    """Wait until there are more rows than now."""
    before = rows(ask)
    wait_for(lambda: rows(ask) > before, 60)


def rows(ask: Ask) -> int:
    try:
        return int(ask("SELECT count(*) FROM numbers")[0][0])
    except Exception:  # the table is not there yet, or the server is not
        return 0


def check(ask: Ask) -> None:
    """Each number once, and sums as without a crash."""
    numbers = [n for n in range(NUMBERS) if n % 10]
    found = Counter(n for (n,) in ask("SELECT number FROM numbers"))
    assert [n for n in numbers if found[n] != 1] == []
    assert len(found) == len(numbers)
    sums = {rest: sum(n for n in numbers if n % 7 == rest) for rest in range(7)}
    assert dict(ask("SELECT rest, total FROM sums")) == sums
    assert dict(ask("SELECT rest, number FROM latest")) == {
        rest: max(n for n in numbers if n % 7 == rest) for rest in range(7)
    }
    done = ask("SELECT reference, done FROM flowstream_offsets")
    assert {reference for reference, _ in done} == {f"{NAME}/all", f"{NAME}/latest", "sums"}


def seeded() -> random.Random:
    seed = new_seed()
    return random.Random(seed)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where the machine can: a kill of a process loses nothing that is not synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240 + 6 * KILLS)
def test_kills_leave_each_row_once_in_sqlite(broker: Broker, folder: Path, tmp_path: Path) -> None:
    path = folder / "sunk.sqlite3"
    kills = KILLS if broker.name == "embedded" else KILLS_ON_REAL_BROKERS

    def ask(statement: str) -> list[Any]:
        with closing(sqlite3.connect(path, timeout=20)) as connection:
            return connection.execute(statement).fetchall()

    chance = seeded()
    with processes(broker, str(path), tmp_path) as nursery:
        stands = [live_and_be_killed(nursery, ask, chance) for _ in range(kills)]
        print(f"rows after each kill: {stands}")
        assert stands[-1] < NUMBERS * 0.9, "there was nothing left to lose"
        nursery.start("fast")
        assert nursery.end() == 0, (tmp_path / "errors").read_text()[-4000:]
    check(ask)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240 + 12 * KILLS)
def test_kills_leave_each_row_once_in_postgres(
    embedded_broker: Broker, postgres: Postgres, tmp_path: Path
) -> None:
    """One kill in five is the server's, and some only cut connections: the process goes on."""
    database = postgres.database()

    def ask(statement: str) -> list[Any]:
        return postgres.ask(database, statement)

    chance = seeded()
    with processes(embedded_broker, database, tmp_path) as nursery:
        stands = []
        for turn in range(KILLS):
            if turn % 5 == 2:
                nursery.start()
                writes_more(ask)
                time.sleep(chance.uniform(0, LIFE))
                postgres.stop("immediate")
                postgres.start()
                writes_more(ask)
                cut(ask)
                writes_more(ask)
                os.kill(nursery.process_id, signal.SIGKILL)
                assert nursery.end() == -signal.SIGKILL
            stands.append(live_and_be_killed(nursery, ask, chance))
        print(f"rows after each kill: {stands}")
        assert stands[-1] < NUMBERS * 0.9, "there was nothing left to lose"
        nursery.start("fast")
        assert nursery.end() == 0, (tmp_path / "errors").read_text()[-4000:]
    check(ask)


def cut(ask: Ask) -> None:
    """End all other connections of the database."""
    ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
