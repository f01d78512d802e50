"""The event loop of a command, and the signals that end a process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskStatus

from flowstream.texts import interrupts

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds after which a signal that the event loop has not received is unheard."""


def run_async(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """The result of an async function, run on asyncio, with uvloop where it is installed."""
    options = {"use_uvloop": find_spec("uvloop") is not None}
    try:
        return anyio.run(main, *args, backend="asyncio", backend_options=options)
    except BaseExceptionGroup as group:
        if interrupts(group):
            raise KeyboardInterrupt from group
        raise


async def on_signal(
    action: Callable[[], None], *, task_status: TaskStatus[None] | None = None
) -> None:
    """Call `action` for every signal that ends a process, until cancelled.

    `task_status` is started once signals are received. SIGHUP, of a terminal that is closed, is
    among them unless it is ignored (nohup).
    """
    await on_named_signal(lambda name: action(), task_status=task_status)


async def on_named_signal(
    action: Callable[[str], None],
    *,
    unheard: Callable[[int, Callable[[], bool]], None] | None = None,
    task_status: TaskStatus[None] | None = None,
) -> None:
    """As `on_signal`; `action` gets the signal's name, such as `SIGTERM`.

    While a handler blocks the event loop, `action` cannot be called. If that lasts `PATIENCE`, a
    thread calls `unheard` with the number of the signal, from 1, and with a function that says
    whether `action` still waits.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    _received.update(numbers)
    with anyio.open_signal_receiver(*numbers) as signals:
        receive_hangup()
        if task_status is not None:
            task_status.started()
        heard = _Heard(unheard, numbers)
        async for number in signals:
            heard.count += 1
            action(signal.Signals(number).name)


_received: set[signal.Signals] = set()
"""The signals that the event loop receives."""


def _default_signals() -> None:
    """In a process that a handler forks, let signals do what they do in any program.

    They would reach the event loop of the run, through the descriptor that both processes have: the
    end of a `multiprocessing.Pool`, which terminates its processes, would end the run.
    """
    if _received:
        signal.set_wakeup_fd(-1)
    for number in _received:
        of_python = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, of_python)
    _receive_again()


def _hold_signals() -> None:
    """Before a fork: a signal to the child waits until it has no effect on this process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _received)


def _receive_again() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _received)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_signals, after_in_parent=_receive_again, after_in_child=_default_signals
    )


def receive_hangup() -> None:
    """Receive SIGHUP from now on, also one that came while `main` held it."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


class _Heard:
    """Counts the signals that arrive, where Python runs code even if the event loop does not."""

    def __init__(
        self,
        unheard: Callable[[int, Callable[[], bool]], None] | None,
        numbers: list[signal.Signals],
    ) -> None:
        self.count = 0
        self._arrived = 0
        self._unheard = unheard
        if unheard is not None:
            for number in numbers:  # in place of the loop's own, which does nothing
                signal.signal(number, self._arrive)

    def _arrive(self, number: int, frame: object) -> None:
        self._arrived += 1
        threading.Thread(target=self._wait, args=(self._arrived,), daemon=True).start()

    def _wait(self, nth: int) -> None:
        time.sleep(PATIENCE)
        if self.count < nth and self._unheard is not None:
            self._unheard(nth, lambda: self.count < nth)
