"""Virtual time: when nothing else can happen, the clock jumps to the next timer.

An hour's batch timeout passes in a millisecond. It is chosen where the event loop is made:

    @pytest.fixture
    def anyio_backend():                        # anyio's own pytest plugin
        return virtual_time()                   # or virtual_time("trio")

    run_virtual(main)                           # a plain def test

While a worker thread is at work, time passes as it really does (`threads_take_time`). It is for
what happens inside one process: with sockets, the other side's answer comes after the jump.
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
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    import trio

T = TypeVar("T")
Backend = Literal["asyncio", "trio"]


def virtual_time(
    backend: Backend = "asyncio", *, moment: float = 0.0
) -> tuple[str, dict[str, Any]]:
    """A backend with its options, as `anyio_backend` fixtures return it.

    Nothing can happen when no event came for `moment` real seconds: more than 0 is needed only
    for threads and sockets that `threads_take_time` does not know.
    """
    if backend == "asyncio":
        return "asyncio", {"loop_factory": partial(VirtualLoop, moment)}
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=moment)}


def run_virtual(main: Callable[..., Awaitable[T]], *args: Any, backend: Backend = "asyncio") -> T:
    """Run an async function in virtual time on an event loop of its own."""
    name, options = virtual_time(backend)

    async def run() -> T:
        with threads_take_time():
            return await main(*args)

    return anyio.run(run, backend=name, backend_options=options)


def is_virtual() -> bool:
    """Does the running event loop have virtual time?"""
    return _loop() is not None or _clock() is not None


@contextmanager
def threads_take_time(*limiters: anyio.CapacityLimiter) -> Iterator[None]:
    """Inside, time passes as it really does while a worker thread is at work.

    Meant are anyio's own worker threads and those of `limiters`. Without virtual time nothing
    changes.
    """
    watched = _watched()
    counted = {anyio.to_thread.current_default_thread_limiter(), *limiters} - watched
    watched |= counted
    try:
        yield
    finally:
        watched -= counted


def _watched() -> set[anyio.CapacityLimiter]:
    """The limiters whose tokens hold the running loop's clock."""
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
    """`timeout` later than `now`, and always late enough for asyncio to call what is due then.

    It calls what is due before now plus 1 ns; far from 0 a float cannot tell those apart.
    """
    later = now + timeout
    if later + 1e-9 == later or later == now:
        later = math.nextafter(math.nextafter(later, math.inf), math.inf)
    return later


class JumpingSelector(selectors.DefaultSelector):
    """Waits for events, and where none come moves `now` ahead by the timeout."""

    def __init__(self, moment: float) -> None:
        super().__init__()
        self.moment = moment
        self.now = 0.0
        self.limiters: set[anyio.CapacityLimiter] = set()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if any(limiter.borrowed_tokens for limiter in self.limiters):
            started = time.monotonic()
            events = super().select(timeout)
            self.now += min(time.monotonic() - started, timeout)
            return events
        events = super().select(self.moment)
        if not events:
            self.now = _after(self.now, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time` stands still while something happens, and jumps otherwise."""

    def __init__(self, moment: float = 0.0) -> None:
        self._jumping = JumpingSelector(moment)
        self.limiters = self._jumping.limiters
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class _RealWhileBusy:
    """A trio instrument: no jumps, but real time, while a limiter has lent a token."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.limiters: set[anyio.CapacityLimiter] = set()
        self._clock = clock
        self._threshold = clock.autojump_threshold
        self._busy = False

    def after_task_step(self, task: Any) -> None:
        busy = any(limiter.borrowed_tokens for limiter in self.limiters)
        if busy is not self._busy:
            self._busy = busy
            self._clock.autojump_threshold = float("inf") if busy else self._threshold
            self._clock.rate = 1.0 if busy else 0.0


_instruments: WeakKeyDictionary[Any, _RealWhileBusy] = WeakKeyDictionary()
