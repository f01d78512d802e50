"""The workers of a stage: their number can change while they run, and what each does is visible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final

import anyio.abc

from flowstream.pipeline.deciders.key_load import HotKey
from flowstream.pipeline.handlers.processes import Processes
from flowstream.pipeline.handlers.worker_state import Idle, WorkerState
from flowstream.pipeline.options import BatcherOptions, ProcessorOptions
from flowstream.pipeline.state.log_context import begin_work
from flowstream.pipeline.state.run_state import RunState

inside: ContextVar[RunState | None] = ContextVar("flowstream_inside", default=None)
"""The run whose handler called the current code, if any."""


class Pool(ABC):
    """Workers 0 to `concurrency` - 1; each runs `work` and is restarted when it crashes."""

    phases: tuple[str, ...]
    """In which messages fail here. A batcher may have the name of the processor."""

    def __init__(
        self,
        state: RunState,
        options: ProcessorOptions | BatcherOptions,
        kind: str,
        timeout: float | None,
    ) -> None:
        self.state = state
        self.options = options
        self.name: str = options.name
        self.kind = kind
        self.concurrency: int = options.concurrency
        self.timeout = timeout
        self.workers: dict[int, WorkerState] = {}
        self.processes: Final = Processes(state.name, options.name)
        self.idle_workers: Final = Idle()
        self.handled: int = 0
        self.parked = 0
        self.retried = 0
        self.seconds: float = 0.0
        self._busy = 0.0
        self._worked = 0.0
        self._born: dict[int, float] = {}
        self._group: anyio.abc.TaskGroup | None = None

    @property
    def failed(self) -> int:
        """How many attempts failed."""
        return sum(self.state.failures.of_stage[self.name, phase] for phase in self.phases)

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Start the workers in `group`."""
        self._group = group
        self._fill()

    def close(self) -> None:
        """Start no more workers, and call no handler for another message."""
        self._group = None
        for worker in self.workers.values():
            worker.cut()

    def set_workers(self, concurrency: int) -> None:
        """Change the number of workers: new ones start at once, surplus ones end when free."""
        self.concurrency = concurrency
        self._fill()
        self.idle_workers.wake(len(self.idle_workers))

    def _count(self, handled: int, seconds: float) -> None:
        """So many messages were handled, in so many seconds of a worker."""
        self.handled += handled
        self.seconds += seconds

    def _fill(self) -> None:
        if self._group is None:
            return
        for index in range(self.concurrency):
            if index not in self.workers:
                worker = self.workers[index] = WorkerState(self.name, index)
                self._born[index] = self.state.clock()
                self._group.start_soon(
                    self._live, worker, name=f"{self.state.name} {self.name} {index}"
                )

    async def _live(self, worker: WorkerState) -> None:
        inside.set(self.state)

        async def body() -> None:
            worker.coroutine = coroutine = self.work(worker)
            await coroutine

        async def crashed(error: BaseException) -> None:
            await self.crashed(worker, error)

        begin_work(self.state.name, worker)
        try:
            await self.state.supervise(self.name, body, crashed)
        finally:
            await self.processes.end(worker.index)
            self.workers.pop(worker.index, None)
            self._worked += self.state.clock() - self._born.pop(worker.index)
        self._fill()

    @property
    def busy(self) -> int:
        return sum(worker.active for worker in self.workers.values())

    def handling(self) -> list[str]:
        """The names of the handlers that are running."""
        active = [worker for worker in self.workers.values() if worker.active]
        return [worker.callback or worker.name for worker in active]

    def release(self, worker: WorkerState) -> None:
        """The worker no longer holds messages."""
        if worker.active:
            self._busy += self.state.clock() - worker.taken
        worker.release()

    def times(self, now: float) -> dict[str, float]:
        """Worker-seconds so far that were "busy" (holding messages) and "idle"."""
        in_hand = sum(now - worker.taken for worker in self.workers.values() if worker.active)
        worked = self._worked + sum(now - born for born in self._born.values())
        busy = self._busy + in_hand
        return {"busy": busy, "idle": worked - busy}

    def working(self, worker: WorkerState) -> AbstractContextManager[anyio.CancelScope | None]:
        """Call the handler inside. If it has a timeout, the watchdog ends it by the scope given."""
        return _Unlimited(worker) if self.timeout is None else _limited(worker)

    @property
    def hot_key(self) -> HotKey | None:
        """The key that most messages have; None where no order of keys is kept."""
        return None

    @property
    def hung(self) -> int:
        """Threads of the handler that were given up and have not returned."""
        return self.state.threads.hung.count(self.name)

    @abstractmethod
    def resize(self, workers: int) -> None:
        """Change the number of workers; if order is kept, after the messages taken in before."""

    @abstractmethod
    async def work(self, worker: WorkerState) -> None:
        """The loop of one worker. It returns when `worker.index` is not below `concurrency`."""

    @abstractmethod
    async def crashed(self, worker: WorkerState, error: BaseException) -> None:
        """Settle the messages that a crashed worker held."""


class _Unlimited:
    """A class and no generator: it is entered for each slice."""

    __slots__ = ("_worker",)

    def __init__(self, worker: WorkerState) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._worker.at_work = True

    def __exit__(self, *raised: object) -> None:
        self._worker.at_work = False


@contextmanager
def _limited(worker: WorkerState) -> Iterator[anyio.CancelScope]:
    worker.at_work = True
    try:
        with anyio.CancelScope() as worker.scope:
            yield worker.scope
    finally:
        worker.at_work, worker.scope = False, None
