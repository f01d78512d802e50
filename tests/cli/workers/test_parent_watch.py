"""A worker whose parent is gone ends although its event loop does not answer."""

from __future__ import annotations

import asyncio
import queue
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from flowstream.cli.workers.parent_watch import ParentWatch

pytestmark = pytest.mark.anyio

GRACE = 0.2


@pytest.fixture
def reasons() -> queue.Queue[str]:
    return queue.Queue()


def test_a_process_without_an_event_loop_ends(reasons: queue.Queue[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ParentWatch(theirs, grace=GRACE, end=reasons.put)
        ours.send(b"what the parent says is not for the watch")
        with pytest.raises(queue.Empty):
            reasons.get(timeout=4 * GRACE)
        ours.close()
        assert "has not answered for 0.2 s" in reasons.get(timeout=10)
        assert theirs.recv(100) == b"what the parent says is not for the watch"


class Asked:
    """The running event loop, and how often it was asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.times = 0

    def call_soon_threadsafe(self, answer: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(answer)
        self.times += 1


async def test_an_event_loop_that_answers_may_drain_and_one_that_is_blocked_may_not(
    reasons: queue.Queue[str],
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = ParentWatch(theirs, grace=10 * GRACE, end=reasons.put)
        loop: Any = Asked()
        watch.follow(loop)
        ours.close()
        while loop.times < 3:
            await asyncio.sleep(0.01)
        assert reasons.empty()
        deadline = time.monotonic() + 20
        while reasons.empty() and time.monotonic() < deadline:
            time.sleep(0.01)  # as a handler that blocks
        assert not reasons.empty()
