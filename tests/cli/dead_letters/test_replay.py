"""A replay that is broken off at any point loses and doubles nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flowstream.cli.dead_letters.dead_letter_records import record_of
from flowstream.cli.dead_letters.replay import (
    EDITION,
    REFERENCE,
    Replayed,
    by_target,
    next_to_replay,
    replay_chosen,
    replay_waiting,
)
from flowstream.client import AmqpMessage, Environment
from tests.brokers.running import Broker
from tests.chaos.orders import ROOT, Warehouse, place_of_its_own, publish
from tests.cli.command import Result, Started, flowstream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]  # many processes

LETTERS = 40


class Killed(Exception):
    """The process ended here."""


def dead(number: int, source: str) -> bytes:
    about = {"x-pipeline": "p", "x-stream": source, "x-offset": number}
    return AmqpMessage.of(b"%d" % number, application_properties=about).raw


@asynccontextmanager
async def letters(broker: Broker, name: str) -> AsyncIterator[Environment]:
    """A source, and a stream of dead letters of it in several chunks; both deleted afterwards."""
    async with Environment(broker.url) as environment:
        for stream in (name, f"{name}.dead"):
            await environment.create_stream(stream)
        async with environment.publisher(f"{name}.dead") as publisher:
            for first in range(0, LETTERS, 10):
                group = range(first, first + 10)
                await publisher.publish_many([dead(number, name) for number in group])
        try:
            yield environment
        finally:
            for stream in (name, f"{name}.dead"):
                await environment.delete_stream(stream)


async def bodies(environment: Environment, stream: str) -> list[int]:
    last = await environment.last_offset(stream)
    found: list[int] = []
    if last is not None:
        async with environment.consumer(stream) as consumer:
            async for delivery in consumer:
                found += map(int, delivery.bodies)
                if delivery.offsets[-1] >= last:
                    break
    return found


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_killed_between_the_confirm_and_the_position(
    broker: Broker, stream_name: str, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    async with letters(broker, stream_name) as environment:
        stored = environment.store_offset_verified
        left = chunks

        async def store(reference: str, stream: str, offset: int) -> None:
            nonlocal left
            if reference == REFERENCE:
                if not left:
                    raise Killed
                left -= 1
            await stored(reference, stream, offset)

        monkeypatch.setattr(environment, "store_offset_verified", store)
        with pytest.raises(Killed):
            await replay_waiting(environment, f"{stream_name}.dead", None, dry_run=False)
        monkeypatch.undo()
        there = await bodies(environment, stream_name)
        assert there == [*range(len(there))]
        assert there
        rest = await replay_waiting(environment, f"{stream_name}.dead", None, dry_run=False)
        assert rest.before[stream_name] > 0
        assert rest.published[stream_name] == LETTERS - len(there)
        assert await bodies(environment, stream_name) == [*range(LETTERS)]
        again = await replay_waiting(environment, f"{stream_name}.dead", None, dry_run=False)
        assert again == Replayed()


async def test_a_dry_run_tells_and_does_nothing(broker: Broker, stream_name: str) -> None:
    async with letters(broker, stream_name) as environment:
        name = f"{stream_name}.dead"
        told = await replay_waiting(environment, name, None, dry_run=True)
        assert told.published == {stream_name: LETTERS}
        assert await bodies(environment, stream_name) == []
        assert await next_to_replay(environment, name) == 0
        assert await environment.query_offset(EDITION, name) is None
        chosen = await replay_chosen(environment, name, [3, 17], None, dry_run=False)
        assert chosen.published == {stream_name: 2}
        assert await bodies(environment, stream_name) == [3, 17]
        assert await next_to_replay(environment, name) == 0


def test_letters_go_where_they_came_from() -> None:
    found = [record_of(n, 0, dead(n, source)) for n, source in enumerate(["a", "b", "a"])]
    given = [it for it in found if it is not None]
    assert {to: [it.offset for it in its] for to, its in by_target(given, None).items()} == {
        "a": [0, 2],
        "b": [1],
    }
    assert [*by_target(given, "c")] == ["c"]


# -- the orders ----------------------------------------------------------------------


class Orders:
    """The orders pipeline, its rule as it is or corrected, in a place of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.warehouse = Warehouse(folder / "orders.sqlite3")

    def run(self) -> None:
        line = ("run", "pipelines.orders", "--until-idle", "0.5")
        env = {"ORDERS_WAREHOUSE": str(self.warehouse.path)}
        done = flowstream(*line, url=self.url, cwd=self.folder, env=env)
        assert done.code == 0, done.err

    def correct(self) -> None:
        """From now on an order may cost nothing."""
        module = self.folder / "pipelines" / "orders.py"
        text = module.read_text()
        assert "amount <= 0" in text
        module.write_text(text.replace("amount <= 0", "amount < 0"))

    def replay(self) -> Result:
        return flowstream("dead-letters", "replay", "orders.dead", url=self.url)


@pytest.fixture
def orders(broker: Broker, tmp_path: Path) -> Iterator[Orders]:
    (tmp_path / "pipelines").mkdir()
    for file in (ROOT / "pipelines").glob("*.py"):
        (tmp_path / "pipelines" / file.name).write_text(file.read_text())
    with place_of_its_own(broker) as url:
        yield Orders(url, tmp_path)


@pytest.mark.slow
def test_once_the_rule_is_corrected_a_replay_completes_the_warehouse(
    orders: Orders, tmp_path: Path
) -> None:
    want = publish(orders.url, tmp_path)
    orders.run()
    assert orders.warehouse.totals == want.totals
    assert want.totals[0] == 69_579
    orders.correct()
    assert orders.replay().out == "80 messages replayed and confirmed into orders\n"
    orders.run()
    complete = orders.warehouse.totals
    assert complete == (69_659, complete[1], want.totals[2])
    assert orders.replay().out.startswith("nothing to replay")
    orders.run()
    assert orders.warehouse.totals == complete


@pytest.mark.slow
def test_a_replay_that_is_killed_completes_the_warehouse_once(
    orders: Orders, tmp_path: Path
) -> None:
    want = publish(orders.url, tmp_path, 20_000)
    orders.run()
    with Started("dead-letters", "replay", "orders.dead", url=orders.url) as replay:
        line = ("streams", "stats", "orders", "--json")
        while replay.process.poll() is None:
            if flowstream(*line, url=orders.url).json[0]["last_offset"] > want.last:
                replay.process.kill()
    orders.correct()
    assert orders.replay().code == 0
    orders.run()
    assert orders.warehouse.totals[0] == 20_000
    assert orders.replay().out.startswith("nothing to replay")
    orders.run()
    assert orders.warehouse.totals[0] == 20_000
