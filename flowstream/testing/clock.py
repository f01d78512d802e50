"""Virtual time: while every task waits, the clock jumps to the next timer.

A batch timeout of an hour passes in a millisecond. Virtual time is a property of the event loop:

    @pytest.fixture
    def anyio_backend():                        # anyio's own pytest plugin
        return virtual_time()                   # or virtual_time("trio")

    run_virtual(main)                           # a plain def test

While a worker thread runs, or a sink writes in one, time passes in real time
(`threads_take_time`): otherwise a timeout would overtake the thread. Use virtual time only for what
happens inside one process: the loop cannot know that another process is about to answer, and jumps
ahead.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, get_args
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from flowstream.errors import ConfigurationError
from flowstream.pipeline import threads_run
from flowstream.texts import shown

if TYPE_CHECKING:
    import trio

T = TypeVar("T")
Backend = Literal["asyncio", "trio"]


def virtual_time(
    backend: Backend = "asyncio", *, moment: float = 0.0
) -> tuple[str, dict[str, Any]]:
    """An anyio backend and its options, as an `anyio_backend` fixture returns them.

    The clock jumps when no event came for `moment` seconds of real time. More than 0 is needed
    only for sockets, and for threads whose limiters `threads_take_time` was not given.
    """
    if backend not in get_args(Backend):
        raise ConfigurationError(f'backend={shown(backend)}: expected "asyncio" or "trio"')
    if backend == "asyncio":
        return "asyncio", {"loop_factory": partial(VirtualLoop, moment)}
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=moment)}


def run_virtual(main: Callable[..., Awaitable[T]], *args: Any, backend: Backend = "asyncio") -> T:
    """Run an async function on a new event loop in virtual time, and return its result."""
    _refuse_running_loop()
    name, options = virtual_time(backend)

    async def run() -> T:
        with threads_take_time():
            return await main(*args)

    return anyio.run(run, backend=name, backend_options=options)


def _refuse_running_loop() -> None:
    try:
        current_token()
    except RuntimeError:  # no event loop runs, as it should be
        return
    raise RuntimeError(
        "an event loop is running already: in an async test, write `await tester.run(...)` instead "
        "of run_sync, and await the function instead of calling run_virtual"
    )


def is_virtual() -> bool:
    """Whether the running event loop has virtual time."""
    return _loop() is not None or _clock() is not None


@contextmanager
def threads_take_time(*limiters: anyio.CapacityLimiter) -> Iterator[None]:
    """A context in which time passes in real time while a worker thread runs.

    It applies to anyio's default worker threads and to those of `limiters`. On an event loop
    without virtual time it has no effect.
    """
    watched = _watched()
    counted = {anyio.to_thread.current_default_thread_limiter(), *limiters} - watched
    watched |= counted
    try:
        yield
    finally:
        watched -= counted


def _watched() -> set[anyio.CapacityLimiter]:
    """The limiters that keep the running loop in real time while they have lent a token."""
    loop, clock = _loop(), _clock()
    if loop is not None:
        return loop.limiters
    if clock is None:
        return set()
    import trio

    instrument = _instruments.setdefault(clock, _RealWhileBusy(clock))
    trio.lowlevel.add_instrument(cast("trio.abc.Instrument", instrument))
    return instrument.limiters


def _loop() -> VirtualLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, VirtualLoop) else None


def _clock() -> trio.testing.MockClock | None:
    if "trio.testing" not in sys.modules:
        return None
    import trio.testing

    try:
        clock = trio.lowlevel.current_clock()
    except RuntimeError:
        return None
    return clock if isinstance(clock, trio.testing.MockClock) else None


def _after(now: float, timeout: float) -> float:
    """`timeout` after `now`, and always late enough for asyncio to run the timers that are due.

    asyncio runs timers that are due before `time() + 1e-9`. For large times the next float is
    further away than that: the sum alone could stay below the timer's time, and the loop would
    spin.
    """
    later = now + timeout
    if later + 1e-9 == later or later == now:
        later = math.nextafter(math.nextafter(later, math.inf), math.inf)
    return later


class JumpingSelector(selectors.DefaultSelector):
    """Waits for events for a moment; if none come, moves `now` ahead by the timeout."""

    def __init__(self, moment: float) -> None:
        super().__init__()
        self.moment = moment
        self.now: float = 0.0
        self.limiters: set[anyio.CapacityLimiter] = set()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if threads_run() or any(limiter.borrowed_tokens for limiter in self.limiters):
            started = time.monotonic()
            events = super().select(timeout)
            self.now += min(time.monotonic() - started, timeout)
            return events
        events = super().select(self.moment)
        if not events:
            self.now = _after(self.now, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose `time` only moves while every task waits."""

    def __init__(self, moment: float = 0.0) -> None:
        self._jumping = JumpingSelector(moment)
        self.limiters: Final = self._jumping.limiters
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class _RealWhileBusy:
    """A trio instrument: real time instead of jumps while a limiter has lent a token."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.limiters: set[anyio.CapacityLimiter] = set()
        self._clock = clock
        self._threshold = clock.autojump_threshold
        self._busy = False

    def after_task_step(self, task: Any) -> None:
        busy = threads_run() or any(limiter.borrowed_tokens for limiter in self.limiters)
        if busy is not self._busy:
            self._busy = busy
            self._clock.autojump_threshold = float("inf") if busy else self._threshold
            self._clock.rate = 1.0 if busy else 0.0


_instruments: WeakKeyDictionary[Any, _RealWhileBusy] = WeakKeyDictionary()
