"""A worker whose parent is gone ends although its event loop does not answer."""

from __future__ import annotations

import asyncio
import queue
import socket
import time

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


async def test_an_event_loop_that_answers_may_drain_and_one_that_is_blocked_may_not(
    reasons: queue.Queue[str],
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = ParentWatch(theirs, grace=GRACE, end=reasons.put)
        watch.follow(asyncio.get_running_loop())
        ours.close()
        await asyncio.sleep(5 * GRACE)
        assert reasons.empty()
        deadline = time.monotonic() + 10
        while reasons.empty() and time.monotonic() < deadline:
            time.sleep(0.01)  # as a handler that blocks
        assert not reasons.empty()
