"""Ends a worker whose parent is gone and whose event loop no longer runs.

A worker whose parent ends drains by itself (link.py). A handler that blocks the event loop
permanently would keep it alive, and nobody would know of it. So a thread waits for the end of the
parent too. From then on it asks the event loop for an answer again and again, and ends the process
if none comes. A C extension that never releases the GIL stops this thread as well.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

GRACE = 5.0
"""Seconds for which the event loop may be silent after the end of the parent."""
PAUSE = 0.5
"""Seconds between two questions."""


class ParentWatch:
    """Waits for the end of the parent, which closes its end of the socket.

    `end` is called if the event loop, or whatever runs before and after it, takes longer than
    `grace` from then on.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        grace: float = GRACE,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self._socket = connection.dup()
        self._grace = grace
        self._end = end or end_group
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._run, name="parent watch", daemon=True).start()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on this event loop has to answer."""
        self._loop = loop

    def _run(self) -> None:
        with self._socket:
            self._wait()
        while self._answers():
            time.sleep(PAUSE)
        self._end(
            "the process that started this worker has ended, and the event loop has not answered "
            f"for {self._grace:g} s (a handler blocks it). The worker ends without a drain; its "
            "messages in flight are handled again"
        )

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._socket, 0)  # what the parent sends is not for this thread
        while not any(state & (select.POLLHUP | select.POLLERR) for _, state in poll.poll()):
            time.sleep(PAUSE)

    def _answers(self) -> bool:
        answered = threading.Event()
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed: the process has so long to end
                self._loop.call_soon_threadsafe(answered.set)
        return answered.wait(self._grace)


def end_group(why: str) -> None:
    """Write why, and end this process and those that it has started."""
    with suppress(OSError):
        os.write(2, f"flowstream: {why}\n".encode())
    pid = os.getpid()
    if os.getpgid(pid) == pid:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(1)
