"""The event loop of a command, and the signals that end a process."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskStatus

from flowstream.texts import interrupts

T = TypeVar("T")


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
    action: Callable[[str], None], *, task_status: TaskStatus[None] | None = None
) -> None:
    """As `on_signal`; `action` gets the signal's name, such as `SIGTERM`."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with anyio.open_signal_receiver(*numbers) as signals:
        if task_status is not None:
            task_status.started()
        async for number in signals:
            action(signal.Signals(number).name)
