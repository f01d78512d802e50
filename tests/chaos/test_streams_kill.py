"""`kill -9` at random moments while numbers go from stream to stream: each output is there once, in
the order of its source partition, and so is each dead letter.

CHAOS_KILLS is how many kills, CHAOS_SEED makes the moments. Of five processes, one loses its
connections all the time before it is killed, and one runs beside another that reads the same.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from flowstream import Environment
from flowstream.client import AmqpMessage, hash_route
from tests.brokers.running import Broker
from tests.chaos.nursery import Nursery
from tests.chaos.orders import place_of_its_own, wait_for
from tests.chaos.seeds import new_seed
from tests.chaos.streamed import DEAD, PARTITIONS, SOURCE, TARGET
from tests.support.reading import contents

KILLS = int(os.environ.get("CHAOS_KILLS", "3"))
NUMBERS = 2000 * (KILLS + 4)
LIFE = 0.4
"""Seconds after its first output that a process lives, at most."""
HOW = ("slow", "slow", "cut", "slow", "twice")


async def publish(url: str, kind: str) -> None:
    bodies = [json.dumps({"n": n}).encode() for n in range(NUMBERS)]
    async with Environment(url) as environment:
        await environment.create_stream(DEAD)
        if kind == "stream":
            await environment.create_stream(SOURCE)
            await environment.create_stream(TARGET)
            async with environment.publisher(SOURCE) as publisher:
                await publisher.publish_many(bodies)
            return
        for name in (SOURCE, TARGET):
            await environment.create_super_stream(name, partitions=PARTITIONS)
        async with environment.super_stream_publisher(SOURCE) as publisher:
            await publisher.publish_many(bodies, keys=[str(n) for n in range(NUMBERS)])


async def targets_of(environment: Environment, kind: str) -> list[str]:
    return [TARGET] if kind == "stream" else await environment.partitions(TARGET)


async def size(url: str, kind: str) -> int:
    """How many offsets the targets have."""
    async with Environment(url) as environment:
        last = [await environment.last_offset(it) for it in await targets_of(environment, kind)]
    return sum(0 if it is None else it + 1 for it in last)


async def check(url: str, kind: str) -> None:
    expected: dict[str, list[tuple[int, int]]] = defaultdict(list)
    dead: dict[str, list[int]] = defaultdict(list)
    async with Environment(url) as environment:
        sources = [SOURCE] if kind == "stream" else await environment.partitions(SOURCE)

        def source_of(number: int) -> str:
            return SOURCE if kind == "stream" else hash_route(str(number), sources)

        for n in range(NUMBERS):
            if n % 50 == 1:
                dead[source_of(n)].append(n)
            elif n % 10:
                expected[source_of(n)] += [(n, part) for part in range(1 + (n % 7 == 0))]
        found: Counter[tuple[int, int]] = Counter()
        for target in await targets_of(environment, kind):
            outputs = [json.loads(body) for _, _, body in await contents(environment, target)]
            places = [(it["n"], it["part"]) for it in outputs]
            found.update(places)
            for source in sources:
                theirs = [place for place in places if source_of(place[0]) == source]
                assert theirs == sorted(theirs), f"{source} is not in order in {target}"
        letters = [AmqpMessage(body) for _, _, body in await contents(environment, DEAD)]
    wanted = Counter(place for places in expected.values() for place in places)
    assert {place for place, count in found.items() if count > 1} == set(), "repeated"
    assert set(wanted) - set(found) == set(), "lost"
    assert found == wanted
    numbers: dict[str, list[int]] = defaultdict(list)
    for letter in letters:
        numbers[source_of(n := json.loads(letter.body)["n"])].append(n)
    assert numbers == dead


@contextmanager
def processes(broker: Broker, kind: str, folder: Path) -> Iterator[tuple[str, Nursery]]:
    with place_of_its_own(broker) as url:
        anyio.run(publish, url, kind)
        errors = folder / "errors"
        nursery = Nursery("tests.chaos.streamed", url, kind, errors=errors)
        try:
            yield url, nursery
        finally:
            nursery.close()


def kill_them(url: str, kind: str, nursery: Nursery, chance: random.Random) -> list[int]:
    """One in five is killed at any moment of its start, the others while they publish."""
    sizes = [0]
    for number in range(KILLS):
        process = nursery.start(HOW[number % len(HOW)])
        if chance.random() < 0.2:
            moment = chance.uniform(0, 0.5)
        else:
            wait_for(lambda: anyio.run(size, url, kind) > sizes[-1], 60, every=0.05)
            moment = chance.uniform(0, LIFE)
        time.sleep(moment)  # the random moment itself; nothing is waited for
        os.kill(process, signal.SIGKILL)
        assert nursery.end() == -signal.SIGKILL
        sizes.append(anyio.run(size, url, kind))
        print(f"kill {number + 1}: {sizes[-1]} outputs", flush=True)
    return sizes[1:]


def run(broker: Broker, kind: str, folder: Path) -> None:
    seed = new_seed()
    with processes(broker, kind, folder) as (url, nursery):
        sizes = kill_them(url, kind, nursery, random.Random(seed))
        print(f"outputs after each of {KILLS} kills on {broker.name}, {kind}: {sizes}")
        assert sizes[-1] < NUMBERS * 0.9, "there was nothing left to lose"
        nursery.start("fast")
        assert nursery.end() == 0, (folder / "errors").read_text()[-4000:]
        anyio.run(check, url, kind)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240 + 12 * KILLS)
def test_kills_leave_each_output_once_from_stream_to_stream(broker: Broker, tmp_path: Path) -> None:
    run(broker, "stream", tmp_path)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240 + 12 * KILLS)
def test_kills_leave_each_output_once_from_super_stream_to_super_stream(
    broker: Broker, tmp_path: Path
) -> None:
    if broker.version < (3, 13):
        pytest.skip("creating a super stream takes RabbitMQ 3.13")
    run(broker, "super", tmp_path)
