"""A store whose commits wait or fail as a test wants."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from flowstream.broker.records import Change
from flowstream.broker.store import MemoryStore


class GatedStore(MemoryStore):
    """A commit fails, or waits in its thread, as the test says."""

    blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[Change]] = []
        self.failure: Exception | None = None
        self.entered = anyio.Event()
        self.gate = anyio.Event()
        self.gate.set()

    def shut(self) -> None:
        self.entered, self.gate = anyio.Event(), anyio.Event()

    def commit(self, changes: Sequence[Change]) -> None:
        anyio.from_thread.run_sync(self.entered.set)
        anyio.from_thread.run(self.gate.wait)
        if self.failure is not None:
            raise self.failure
        super().commit(changes)
        self.groups.append(list(changes))
