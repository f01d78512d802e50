"""Background tasks that have an owner, which ends them.

A cancelled application must still be able to flush, to unsubscribe and to close its connections. So
cancelling the task that opened the environment does not cancel the background tasks. They end when
the owner's block is left or `Task.cancel` is called; leaving the block waits for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio

from flowstream.blocks import BlockTasks
from flowstream.errors import EnvironmentClosed


class Task:
    """A background task: `cancel()` ends it, `await wait()` returns when it has ended."""

    __slots__ = ("_ended", "_scope", "name")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self._scope = anyio.CancelScope(shield=True)
        self._ended = anyio.Event()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        self._scope.cancel()

    async def wait(self) -> None:
        await self._ended.wait()

    async def run(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            with self._scope:
                await function(*args)
        finally:
            self._ended.set()


class OwnerEnded(EnvironmentClosed, RuntimeError):
    """A task was started when its environment was being closed.

    Whoever is reconnecting at that moment ends like everybody else who uses the environment.
    """


class TaskOwner:
    """Runs background tasks inside an async context manager.

    An exception that escapes a background task is a bug: it cancels the task inside the block and
    is raised when the block is left.
    """

    def __init__(self) -> None:
        self._group: BlockTasks | None = None
        self._tasks: set[Task] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def names(self) -> list[str]:
        return sorted(task.name for task in self._tasks)

    async def __aenter__(self) -> TaskOwner:
        self._group = await BlockTasks().__aenter__()
        return self

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any, name: str) -> Task:
        if self._group is None:
            raise OwnerEnded(f"the {name} cannot begin: its environment has ended; open a new one")
        task = Task(name)
        self._tasks.add(task)
        self._group.start_soon(self._run, task, function, args, name=name)
        return task

    async def _run(
        self, task: Task, function: Callable[..., Awaitable[None]], args: tuple[Any, ...]
    ) -> None:
        try:
            await task.run(function, *args)
        finally:
            self._tasks.discard(task)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        group, self._group = self._group, None
        assert group is not None
        for task in tuple(self._tasks):
            task.cancel()
        with anyio.CancelScope(shield=True):
            for task in tuple(self._tasks):
                await task.wait()
        if error is not None and group.cancelled:
            return await group.__aexit__(kind, error, trace)
        # The block's own error is not the group's: it leaves without an ExceptionGroup.
        await group.__aexit__(None, None, None)
        return None
