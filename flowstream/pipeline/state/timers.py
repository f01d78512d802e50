"""The timers of a run: one task that calls what is due, and the messages that wait for a retry."""

from __future__ import annotations

import math
from collections.abc import Callable

from flowstream.pipeline.deciders.timer_queue import TimerQueue
from flowstream.signals import Signal

Callback = Callable[[], None]


class Timers:
    """Callbacks by time, called on the event loop. `clock` gives the time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue = TimerQueue()
        self._earlier = Signal()
        self._deadline = math.inf
        self._parked: dict[object, tuple[float, Callback]] = {}

    def at(self, when: float, callback: Callback) -> None:
        """Call back at `when`."""
        if self._queue.at(when, callback):
            self._earlier.notify()

    def park(self, due: float, resume: Callback, give_up: Callback) -> None:
        """Call `resume` at `due`, or `give_up` if the drain ends before."""
        if not self.in_time(due):
            give_up()
            return
        self._parked[(entry := object())] = (due, give_up)

        def fire() -> None:
            if self._parked.pop(entry, None) is not None:
                resume()

        self.at(due, fire)

    def in_time(self, due: float) -> bool:
        """Whether the run may last until then."""
        return due <= self._deadline

    def end_at(self, deadline: float) -> None:
        """A drain began: give up what is parked for longer than its deadline."""
        self._deadline = deadline
        for entry, (due, give_up) in list(self._parked.items()):
            if due > deadline:
                del self._parked[entry]
                give_up()

    async def run(self) -> None:
        """Call back what is due, until cancelled."""
        while True:
            for callback in self._queue.due(self._clock()):
                callback()
            next_at = self._queue.next
            await self._earlier.wait(None if next_at is None else max(next_at - self._clock(), 0))
