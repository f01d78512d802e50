"""Settles whether a batch is committed or given up, when a timeout or a stop meets its commit.

A commit runs in a thread, which no cancellation can end. Without a gate, a batch that is given up
at that moment would be written, and its messages would become dead letters as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that a commit has for its answer after the batch was cancelled."""


class GivenUp(Exception):
    """The batch was given up before its commit."""


class OutcomeOpen(Exception):
    """A commit was cancelled, and it is not known whether it happened."""


class CommitGate:
    """Lets one of two win: the thread that commits, or the task that gives the batch up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = self._passed = False

    def reopen(self) -> None:
        """Another batch follows. Raises GivenUp after `close`."""
        with self._lock:
            self._check()
            self._passed = False

    def enter(self) -> None:
        """Called right before the commit. Raises GivenUp after `close`."""
        with self._lock:
            self._check()
            self._passed = True

    def close(self) -> bool:
        """Give the batch up. False if its commit has begun: its outcome has to be waited for."""
        with self._lock:
            self._closed = not self._passed
            return self._closed

    def _check(self) -> None:
        if self._closed:
            raise GivenUp("given up before the commit")


async def in_thread(
    function: Callable[..., T],
    *args: Any,
    give_up: Callable[[], bool],
    limiter: anyio.CapacityLimiter,
) -> T:
    """Call a function that commits in a thread, and return what it returns.

    When it is cancelled, `give_up` says whether the batch is given up. If not, the commit has
    begun: its outcome is returned or raised in spite of the cancellation, or OutcomeOpen after
    PATIENCE.
    """
    outcome: Future[T] = Future()

    def call() -> None:
        try:
            outcome.set_result(function(*args))
        except BaseException as error:
            outcome.set_exception(error)

    try:
        await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
    except anyio.get_cancelled_exc_class():
        if give_up():
            raise
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_wait, outcome, limiter=limiter)
    return outcome.result()


def _wait(outcome: Future[Any]) -> None:
    try:
        outcome.exception(PATIENCE)
    except TimeoutError:
        if not outcome.done():
            raise OutcomeOpen(f"cancelled, and no answer to its commit in {PATIENCE:g} s") from None
