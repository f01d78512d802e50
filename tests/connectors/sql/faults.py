"""Databases that break at one effect: the process dies there, or the connection is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from flowstream.connectors.sql.sqlite import SqliteDatabase

T = TypeVar("T")


class Killed(Exception):
    """The process is dead: nothing it does has an effect any more."""


class ConnectionLost(Exception):
    """The connection is gone, and whatever was not committed with it."""


@dataclass
class Faults:
    """Counts effects of a run, and breaks number `at`, before or after it took place."""

    at: int | None = None
    kind: Literal["kill", "lose"] = "kill"
    after: bool = False
    count: int = 0
    broke: bool = False
    dead: bool = False
    effects: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def effect(self, name: str, connection: Any, do: Callable[[], T]) -> T:
        if self.dead:
            raise Killed
        with self.lock:
            mine = self.count == self.at
            self.count += 1
            self.effects.append(name)
        if mine and not self.after:
            self.breaks(connection)
        try:
            return do()
        finally:
            if mine and not self.broke:
                self.breaks(connection)

    def breaks(self, connection: Any) -> None:
        self.broke = True
        self.dead = self.kind == "kill"
        connection.break_off()
        raise Killed if self.dead else ConnectionLost


class FaultySqlite(SqliteDatabase):
    """Whatever it does with the file is an effect."""

    faults: Faults

    def __init__(self, faults: Faults, *args: Any) -> None:
        self.faults = Faults()  # opening it is no part of a batch
        super().__init__(*args)
        self.faults = faults

    def break_off(self) -> None:
        """As the end of a process or connection: the transaction is rolled back."""
        super().rollback()
        super().close()

    def begin(self) -> None:
        self.faults.effect("begin", self, super().begin)

    def execute(self, statement: str, values: Sequence[Any]) -> list[Any]:
        def run() -> list[Any]:
            return super(FaultySqlite, self).execute(statement, values)

        return self.faults.effect(statement.split(maxsplit=1)[0].lower(), self, run)

    def insert(self, rows: Sequence[Any], *, apart: bool) -> None:
        def run() -> None:
            super(FaultySqlite, self).insert(rows, apart=apart)

        self.faults.effect("rows", self, run)

    def rollback(self) -> None:
        self.faults.effect("rollback", self, super().rollback)

    def commit(self) -> None:
        self.faults.effect("commit", self, super().commit)

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionLost) or super().lost(error)
