"""A small warehouse of orders in SQLite. Loading an order again changes nothing.

An order is known by where it stood: (stream, offset). Amounts are kept in cents, so their sum is
exact.
"""

import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Protocol, TypeVar

import anyio.to_thread

from flowstream import Message

TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    stream TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    order_id INTEGER NOT NULL,
    customer_id INTEGER NOT NULL,
    date TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    cents INTEGER NOT NULL,
    PRIMARY KEY (stream, "offset")
) WITHOUT ROWID
"""


class OrderRow(Protocol):
    """What the warehouse needs to know of an order."""

    order_id: int
    customer_id: int
    date: date
    quantity: int
    amount: Decimal


AnyOrder = TypeVar("AnyOrder", bound=OrderRow)


class Warehouse:
    """One SQLite file. May be used from several threads, one at a time."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(TABLE)
        self._connection.commit()

    def insert(self, orders: Iterable[Message[AnyOrder]]) -> None:
        """Store orders in one transaction; those that are there already stay as they are."""
        rows = [(order.stream, order.offset, *_columns(order.data)) for order in orders]
        with self._lock, self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )

    def totals(self) -> tuple[int, int, Decimal]:
        """(orders, quantity, amount) of everything stored."""
        with self._lock:
            query = "SELECT count(*), total(quantity), total(cents) FROM orders"
            count, quantity, amount = self._connection.execute(query).fetchone()
        return count, int(quantity), Decimal(int(amount)) / 100

    def close(self) -> None:
        self._connection.close()


def _columns(order: OrderRow) -> tuple[int, int, str, int, int]:
    day = order.date.isoformat()
    return order.order_id, order.customer_id, day, order.quantity, cents(order.amount)


def cents(amount: Decimal) -> int:
    """An amount in cents; raises ValueError where it has fractions of a cent."""
    whole = amount.scaleb(2)
    if whole != whole.to_integral_value():
        raise ValueError(f"{amount} has fractions of a cent")
    return int(whole)


@asynccontextmanager
async def opened() -> AsyncIterator[Warehouse]:
    """The warehouse at $ORDERS_WAREHOUSE, for as long as a pipeline runs."""
    path = os.environ.get("ORDERS_WAREHOUSE", "orders.sqlite3")
    store = await anyio.to_thread.run_sync(Warehouse, path)
    try:
        yield store
    finally:
        await anyio.to_thread.run_sync(store.close)
