"""A pool of workers that can be resized while it runs, and shows what each of them does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar

import anyio.abc

from flowstream.pipeline.core import Core
from flowstream.pipeline.options import BatcherOptions, ProcessorOptions
from flowstream.pipeline.place import begin_work
from flowstream.pipeline.processes import Processes
from flowstream.pipeline.stages.slot import Idle, Slot

inside: ContextVar[Core | None] = ContextVar("flowstream_inside", default=None)
"""Whose handler the current task or thread is in."""


class Pool(ABC):
    """Workers 0 to `concurrency` - 1; each runs `work` and is restarted when it crashes."""

    def __init__(
        self,
        core: Core,
        options: ProcessorOptions | BatcherOptions,
        kind: str,
        timeout: float | None,
    ) -> None:
        self.core = core
        self.options = options
        self.name = options.name
        self.kind = kind
        self.concurrency = options.concurrency
        self.timeout = timeout
        self.slots: dict[int, Slot] = {}
        self.processes = Processes(core.name, options.name)
        self.idle_workers = Idle()
        self.handled = 0
        self.failed = 0
        self.retried = 0
        self.seconds = 0.0
        self._busy = 0.0
        self._worked = 0.0
        self._born: dict[int, float] = {}
        self._group: anyio.abc.TaskGroup | None = None

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Start the workers in `group`."""
        self._group = group
        self._fill()

    def close(self) -> None:
        """No worker is started any more, and no handler is called for another message."""
        self._group = None
        for slot in self.slots.values():
            slot.cut()

    def set_workers(self, concurrency: int) -> None:
        """More workers start at once; surplus ones end after what they have in hand."""
        self.concurrency = concurrency
        self._fill()
        self.idle_workers.wake(len(self.idle_workers))

    def _fill(self) -> None:
        if self._group is None:
            return
        for index in range(self.concurrency):
            if index not in self.slots:
                slot = self.slots[index] = Slot(self.name, index)
                self._born[index] = self.core.clock()
                self._group.start_soon(
                    self._live, slot, name=f"{self.core.name} {self.name} {index}"
                )

    async def _live(self, slot: Slot) -> None:
        inside.set(self.core)

        async def body() -> None:
            slot.coroutine = coroutine = self.work(slot)
            await coroutine

        async def crashed(error: BaseException) -> None:
            await self.crashed(slot, error)

        begin_work(self.core.name, slot)
        try:
            await self.core.supervise(self.name, body, crashed)
        finally:
            await self.processes.end(slot.index)
            self.slots.pop(slot.index, None)
            self._worked += self.core.clock() - self._born.pop(slot.index)
        self._fill()

    @property
    def busy(self) -> int:
        return sum(slot.active for slot in self.slots.values())

    def release(self, slot: Slot) -> None:
        """The worker's hands are empty again."""
        if slot.active:
            self._busy += self.core.clock() - slot.taken
        slot.release()

    def times(self, now: float) -> dict[str, float]:
        """Worker-seconds so far that were "busy" (with something in hand) and "idle"."""
        in_hand = sum(now - slot.taken for slot in self.slots.values() if slot.active)
        worked = self._worked + sum(now - born for born in self._born.values())
        busy = self._busy + in_hand
        return {"busy": busy, "idle": worked - busy}

    @property
    def hung(self) -> int:
        """Threads of the handler that were given up and have not come back."""
        return self.core.threads.hung.count(self.name)

    def rest(self) -> None:
        """A worker found nothing to do."""
        self.core.rested()

    @abstractmethod
    def resize(self, workers: int) -> None:
        """Change the number of workers; where order is kept, once what was taken in is through."""

    @abstractmethod
    async def work(self, slot: Slot) -> None:
        """One worker's loop; returns when `slot.index` is not below `concurrency`."""

    @abstractmethod
    async def crashed(self, slot: Slot, error: BaseException) -> None:
        """Settle what a crashed worker had in its hands."""
