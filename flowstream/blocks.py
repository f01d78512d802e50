"""Tasks that run beside the block of an `async with`, whichever task leaves the block.

A task group of anyio must be left by the task that entered it. On asyncio there are programs in
which another one does: pytest-asyncio and unittest set up and end a fixture in two tasks, and every
cell of a notebook is a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskStatus

from flowstream.signals import Signal


class BlockTasks:
    """A task group of anyio, but on asyncio another task may leave it.

    It then waits for the tasks, cancels them if it is cancelled or an error left the block, and
    raises their errors, as a group does. If a task fails when the task that entered is gone, there
    is nobody to cancel: the error is raised when the block is left.
    """

    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self._host: asyncio.Task[Any] | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._changed = Signal()
        self._errors: list[BaseException] = []

    @property
    def cancelled(self) -> bool:
        return self._group.cancel_scope.cancel_called

    def cancel(self) -> None:
        """Cancel the tasks, and what is left of the block."""
        if self._abroad:
            self._cancel_tasks()
        else:
            self._group.cancel_scope.cancel()

    def start_soon(
        self, function: Callable[..., Awaitable[Any]], *args: Any, name: object = None
    ) -> None:
        self._group.start_soon(self._run, function, args, name=name)

    async def start(self, function: Callable[..., Awaitable[Any]]) -> None:
        """Return when the function calls `started` of the `task_status` that it is given."""
        await self._group.start(self._run_status, function)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        # on trio only the task that entered may leave: its nurseries say so themselves
        self._host = asyncio.current_task() if asyncio._get_running_loop() else None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if not self._abroad:
            return await self._group.__aexit__(kind, error, trace)
        if error is not None:
            self._cancel_tasks()
        try:
            await self._ended()
        except BaseException:
            self._cancel_tasks()
            with anyio.CancelScope(shield=True):
                await self._ended()
            raise
        if self._errors:
            raise BaseExceptionGroup("errors of tasks beside the block", self._errors)
        return None

    @property
    def _abroad(self) -> bool:
        """Whether another task than the one that entered is running."""
        return self._host is not None and self._host is not asyncio.current_task()

    def _cancel_tasks(self) -> None:
        for scope in self._scopes:
            scope.cancel()

    async def _ended(self) -> None:
        while self._scopes:
            await self._changed.wait()

    async def _run_status(
        self, function: Callable[..., Awaitable[Any]], *, task_status: TaskStatus[Any]
    ) -> None:
        await self._run(lambda: function(task_status=task_status), ())

    async def _run(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                await function(*args)
        except BaseException as error:
            gone = self._host is not None and self._host.done()
            if not gone or isinstance(error, asyncio.CancelledError):
                raise
            self._errors.append(error)
        finally:
            self._scopes.discard(scope)
            self._changed.notify()
