"""Workers as their parent knows them, with real boards and metrics behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flowstream.metrics import Metrics
from flowstream.monitor import (
    Board,
    Monitor,
    Request,
    Response,
    Retired,
    WorkerEndpoints,
    WorkersMonitor,
    WorkerView,
)
from flowstream.monitor.workers.families import families_of
from flowstream.monitor.workers.snapshots import with_ended
from flowstream.telemetry import Received, Settled, Telemetry
from tests.monitor.figures import PARTITION, Changing

NOW = 1_000.0


class OneWorker:
    """One worker process: it reads `reads`, of the partitions s-0, s-1 and s-2."""

    def __init__(self, number: int, reads: Sequence[str], settled: int) -> None:
        self.metrics, self.board = Metrics(), Board(lambda: NOW)
        telemetry = Telemetry(self.metrics, self.board)
        self.statistics = Changing()
        self.statistics.change(
            settled={"ok": settled},
            received=settled,
            partitions=tuple(
                dataclasses.replace(PARTITION, stream=name, active=name in reads, lag=10)
                for name in ("s-0", "s-1", "s-2")
            ),
        )
        self.board.watch("p", self.statistics)
        telemetry.emit(Received("p", reads[0], settled, settled * 10))
        telemetry.emit(Settled("p", reads[0], "ok", settled, 0.01))
        self.number = number
        self.monitor = Monitor(self.metrics, self.board, control=True)
        self.endpoints = WorkerEndpoints(self.monitor, self.board, self.metrics)
        self.requests: list[Request] = []
        self.silent = False
        self.families = families_of(self.metrics)
        self.away = 0.0
        self.state = "ready"
        self.since = NOW

    async def ask(self, request: Request, patience: float) -> Response | None:
        self.requests.append(request)
        return None if self.silent else await self.endpoints.answer(request)

    def view(self) -> WorkerView:
        return WorkerView(
            self.number, self.state, self.since, 100 + self.number, silent=self.away, ask=self.ask,
            snapshot=self.endpoints.figures()["snapshot"], families=self.families,
        )  # fmt: skip

    def look(self) -> None:
        """The parent asks for its metrics."""
        if not self.silent:
            self.families = families_of(self.metrics)


class Several:
    """The workers of a run."""

    def __init__(self) -> None:
        self.workers = [OneWorker(1, ["s-0", "s-2"], 100), OneWorker(2, ["s-1"], 50)]
        self.waiting: list[WorkerView] = []
        self.retired = Retired()
        self.started = NOW - 60
        self.changes: list[tuple[str, str]] = []
        self.monitor = WorkersMonitor(self, list, lambda: NOW)

    async def look(self) -> None:
        for worker in self.workers:
            worker.look()

    def views(self) -> list[WorkerView]:
        return [*(worker.view() for worker in self.workers), *self.waiting]

    def controlled(self, request: Request, pipeline: str, action: str) -> None:
        self.changes.append((pipeline, action))

    def end(self, number: int) -> None:
        """The process of a worker is killed, and what it counted up to the last look is kept."""
        (gone,) = (worker for worker in self.workers if worker.number == number)
        self.workers.remove(gone)
        self.retired = with_ended(self.retired, number, gone.board.snapshot(), gone.families)
