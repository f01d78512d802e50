"""The context of a run: what producers, sinks and failure policies know of it and open in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

import anyio

from flowstream.errors import ConfigurationError
from flowstream.pipeline.handlers.calls import as_exception, let_through, passes
from flowstream.pipeline.handlers.return_checks import discard
from flowstream.telemetry import Telemetry
from flowstream.texts import type_name

T = TypeVar("T")
Watched = Callable[[str, Awaitable[Any]], Awaitable[Any]]
"""Awaits something under the name that the watchdog reports it by."""

BROKEN = "the run could not be opened or closed"
CLOSE_GRACE = 5.0
"""Seconds in which everything that a run has opened must close."""


class RunContext:
    """One run of one pipeline.

    `url` and `environment` are what the run was given (each may be None); `counts` are the
    messages settled so far by outcome. `settled` returns the offsets that the run has settled
    without a gap, by stream; streams are missing whose source stores no offsets. `hand_overs` are
    called with what is settled of a stream before another process may read it.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        url: str | Sequence[str] | None = None,
        environment: Any = None,
        telemetry: Telemetry | None = None,
        counts: dict[str, int] | None = None,
        watched: Watched | None = None,
        fail: Callable[[BaseException], None] | None = None,
        settled: Callable[[], Mapping[str, range]] = dict,
    ) -> None:
        self.pipeline = pipeline
        self.url = url
        self.environment = environment
        self.telemetry: Telemetry = telemetry or Telemetry()
        self.counts: dict[str, int] = counts if counts is not None else {}
        self.settled = settled
        self.hand_overs: list[Callable[[Mapping[str, range]], Coroutine[Any, Any, None]]] = []
        self._watched = watched or _unwatched
        self._fail = fail
        self._shared: dict[str, Any] = {}
        self._lock = anyio.Lock()
        self._requests: deque[_Request] = deque()
        self._asked = anyio.Event()
        self._closing = False
        self._scope = anyio.CancelScope(shield=True)
        self._stack: AsyncExitStack | None = None
        self._keeper = 0

    def fail(self, error: BaseException) -> None:
        """End the run with an error: it drains, and raises the error."""
        if self._fail is not None:
            self._fail(error)

    async def shared(self, key: str, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `make` opens; it is opened once in a run, and shared under `key`."""
        async with self._lock:
            if key not in self._shared:
                self._shared[key] = await self.enter(make())
            shared: T = self._shared[key]
            return shared

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open something for the rest of the run, from any task; closed in reverse order.

        What is being opened may itself open more, which is then closed after it.
        """
        if self._stack is not None and anyio.get_current_task().id == self._keeper:
            entered: T = await self._entered(self._stack, manager)
            return entered
        request = _Request(manager)
        self._requests.append(request)
        self._asked.set()
        await request.done.wait()
        if request.error is not None:
            raise request.error
        opened: T = request.value
        return opened

    async def keep(self) -> None:
        """Open and close everything in this one task, until `close` is called.

        A cancel scope must be left in the task that entered it, so no other task may do it.
        """
        try:
            await self._keep()
        except BaseException as error:
            let_through(error)
            raise as_exception(BROKEN, error) from error

    async def _keep(self) -> None:
        with self._scope:
            async with AsyncExitStack() as stack:
                self._stack, self._keeper = stack, anyio.get_current_task().id
                while not self._closing:
                    while self._requests and not self._closing:
                        await self._open(stack, self._requests.popleft())
                    if not self._closing:
                        await self._asked.wait()
                    self._asked = anyio.Event()

    def close(self) -> None:
        """Close everything, within CLOSE_GRACE seconds."""
        self._closing = True
        self._scope.deadline = anyio.current_time() + CLOSE_GRACE
        self._asked.set()

    async def _open(self, stack: AsyncExitStack, request: _Request) -> None:
        try:
            request.value = await self._entered(stack, request.manager)
        except BaseException as error:
            if passes(error):
                raise
            request.error = error
        finally:
            request.done.set()

    async def _entered(
        self, stack: AsyncExitStack, manager: AbstractAsyncContextManager[Any]
    ) -> Any:
        maker = getattr(manager, "gen", type(manager))  # of an @asynccontextmanager: its generator
        return await self._watched(maker.__qualname__, stack.enter_async_context(manager))


async def _unwatched(name: str, awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class _Request:
    __slots__ = ("done", "error", "manager", "value")

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self.manager = manager
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = anyio.Event()


def checked_manager(
    manager: AbstractAsyncContextManager[T], place: str
) -> AbstractAsyncContextManager[T]:
    """What a user's function returned to be opened for a run. ConfigurationError names the place if
    it cannot be opened."""
    found: Any = manager
    if not isinstance(found, AbstractAsyncContextManager):
        discard(found)
        raise ConfigurationError(
            f"{place}: expected a function decorated with @asynccontextmanager; this one returned "
            f"an object of type {type_name(found)}"
        )
    return manager
