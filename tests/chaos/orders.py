"""The CDNOW orders, a place of their own on a broker, and what may be asked of both afterwards.

Each test runs in a virtual host that nobody else uses (an embedded broker of its own where the
broker is embedded), so that pipelines run under their real names, on their real streams.
"""

from __future__ import annotations

import csv
import gzip
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anyio

from flowstream import Environment
from flowstream.client import AmqpMessage
from flowstream.testing import broker_in_thread
from tests.brokers.running import Broker
from tests.cli.command import flowstream

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "pipelines" / "data" / "cdnow_orders.csv.gz"
Columns = tuple[int, int, str, int, int]


@dataclass(frozen=True)
class Expected:
    """What the first orders of the file come to: rows by offset, and the offsets rejected."""

    rows: dict[int, Columns]
    rejected: frozenset[int]

    @property
    def last(self) -> int:
        return len(self.rows) + len(self.rejected) - 1

    @property
    def totals(self) -> tuple[int, int, int]:
        """Orders, quantity, cents."""
        values = self.rows.values()
        return len(values), sum(row[3] for row in values), sum(row[4] for row in values)


@cache
def expected(orders: int | None = None) -> Expected:
    """Computed from the file, without any of flowstream."""
    rows: dict[int, Columns] = {}
    rejected = set()
    with gzip.open(FILE, "rt", newline="") as file:
        for offset, row in enumerate(csv.DictReader(file)):
            if offset == orders:
                break
            units, _, fraction = row["amount"].partition(".")
            cents = int(units) * 100 + int(fraction.ljust(2, "0")[:2])
            if cents <= 0:
                rejected.add(offset)
                continue
            rows[offset] = (
                *(int(row["order_id"]), int(row["customer_id"]), row["date"]),
                *(int(row["quantity"]), cents),
            )
    return Expected(rows, frozenset(rejected))


@contextmanager
def place_of_its_own(broker: Broker) -> Iterator[str]:
    """The URL of an empty virtual host, deleted afterwards with its streams."""
    if broker.management is None:
        with broker_in_thread() as embedded:
            yield embedded.url
        return
    name = f"orders-{uuid.uuid4().hex[:12]}"
    broker.api("PUT", f"vhosts/{name}", {})
    try:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        broker.api("PUT", f"permissions/{name}/guest", everything)
        yield f"{broker.url.rpartition('/')[0]}/{name}"
    finally:
        broker.api("DELETE", f"vhosts/{name}")


def publish(url: str, tmp_path: Path, orders: int | None = None) -> Expected:
    """`flowstream publish` the file, or its first orders, into the stream `orders`."""
    file = FILE
    if orders is not None:
        file = tmp_path / "orders.csv"
        with gzip.open(FILE, "rt") as whole, file.open("w") as part:
            part.writelines(line for _, line in zip(range(orders + 1), whole, strict=False))
    done = flowstream("publish", "orders", str(file), "--create", "--json", url=url)
    assert done.code == 0, done.err
    want = expected(orders)
    assert done.json["messages"] == want.last + 1
    return want


# -- what is there afterwards ----------------------------------------------------------


def committed(url: str, reference: str = "orders", stream: str = "orders") -> int | None:
    """QueryOffset."""

    async def ask() -> int | None:
        async with Environment(url) as environment:
            return await environment.query_offset(reference, stream)

    return anyio.run(ask)


def last_offset(url: str, stream: str = "orders") -> int | None:
    async def ask() -> int | None:
        async with Environment(url) as environment:
            return await environment.last_offset(stream)

    return anyio.run(ask)


def dead_letters(url: str, stream: str = "orders.dead") -> list[tuple[dict[str, Any], bytes]]:
    """Application properties and body of everything in the stream, in order."""

    async def read() -> list[tuple[dict[str, Any], bytes]]:
        found: list[tuple[dict[str, Any], bytes]] = []
        async with Environment(url) as environment:
            last = await environment.last_offset(stream)
            if last is None:
                return found
            with anyio.fail_after(20):
                async with environment.consumer(stream, offset="first") as consumer:
                    async for delivery in consumer:
                        for body in delivery.bodies:
                            message = AmqpMessage(body)
                            found.append(
                                (dict(message.application_properties or {}), message.data or b"")
                            )
                        if delivery.offsets[-1] >= last:
                            break
        return found

    return anyio.run(read)


class Warehouse:
    """The SQLite file that a pipeline loads, read from outside while it does or afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _ask(self, query: str) -> list[Any]:
        if not self.path.exists():
            return []
        with closing(sqlite3.connect(self.path, timeout=20)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    @property
    def count(self) -> int:
        rows = self._ask("SELECT count(*) FROM orders")
        return int(rows[0][0]) if rows else 0

    @property
    def rows(self) -> dict[int, Columns]:
        query = 'SELECT "offset", order_id, customer_id, date, quantity, cents FROM orders'
        return {offset: tuple(columns) for offset, *columns in self._ask(query)}  # type: ignore[misc]

    @property
    def totals(self) -> tuple[int, int, int]:
        """Orders, quantity, cents."""
        query = "SELECT count(*), total(quantity), total(cents) FROM orders"
        return tuple(map(int, self._ask(query)[0]))  # type: ignore[return-value]


def wait_for(condition: Callable[[], Any], timeout: float = 30.0, every: float = 0.01) -> Any:
    """Look again until the condition gives something true; AssertionError when it never does."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {timeout:g} s"
        time.sleep(every)
    return value
