"""An SQLite warehouse of orders, keyed by where each came from: a replay changes nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One order and its origin. Amounts are kept in cents, so that sums are exact."""

    stream: str
    offset: int
    order_id: int
    customer_id: int
    date: date
    quantity: int
    amount: Decimal


class Warehouse:
    """`insert` may be called from any thread; it returns once the rows are on disk."""

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS orders (
                stream TEXT NOT NULL, offset INTEGER NOT NULL, order_id INTEGER NOT NULL,
                customer_id INTEGER NOT NULL, date TEXT NOT NULL, quantity INTEGER NOT NULL,
                cents INTEGER NOT NULL, PRIMARY KEY (stream, offset)) WITHOUT ROWID;
            """
        )

    def insert(self, rows: Iterable[Row]) -> None:
        """Load rows in one transaction; those that are there already stay as they are."""
        values = [
            (r.stream, r.offset, r.order_id, r.customer_id, r.date.isoformat(), r.quantity,
             int(r.amount * 100))
            for r in rows
        ]  # fmt: skip
        with self._lock, self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", values
            )

    def totals(self) -> tuple[int, int, Decimal]:
        """(orders, quantity, amount)."""
        with self._lock:
            count, quantity, cents = self._db.execute(
                "SELECT count(*), coalesce(sum(quantity), 0), coalesce(sum(cents), 0) FROM orders"
            ).fetchone()
        return count, quantity, Decimal(cents) / 100

    def close(self) -> None:
        self._db.close()
