"""What a worker has in its hands, which message is in the handler, and since when."""

from __future__ import annotations

import anyio
import pytest

from flowstream.pipeline import Message, Slice
from flowstream.pipeline.handlers.worker_state import Idle, WorkerState


def messages(count: int) -> list[Message[int]]:
    return [Message.new(n, offset=n) for n in range(count)]


def test_the_message_in_the_handler_is_found_without_counting() -> None:
    worker, three = WorkerState("handle", 0), messages(3)
    worker.hold(Slice.of(list(three)), now=0.0)
    worker.walk(worker.messages)
    assert (worker.current, worker.left) == (None, 3)
    for left, message in zip((2, 1, 0), three, strict=True):
        assert next(worker.iterator) is message
        assert (worker.current, worker.left) == (message, left)
    assert next(worker.iterator, None) is None
    assert worker.current is three[-1], "the handler may still be in the last one"


def test_a_worker_that_is_cut_calls_its_handler_for_no_other_message() -> None:
    worker = WorkerState("handle", 0)
    worker.walk(messages(3))
    next(worker.iterator)
    worker.cut()
    assert next(worker.iterator, None) is None


def test_time_counts_from_the_last_message_that_got_on() -> None:
    worker = WorkerState("handle", 0)
    worker.hold(Slice.of(messages(3)), now=10.0)
    worker.walk(worker.messages)
    next(worker.iterator)
    assert worker.elapsed(12.0) == 0, "one was taken since"
    assert worker.elapsed(15.0) == 3
    worker.queued = True
    assert worker.elapsed(20.0) == 0, "it waits for a thread"
    worker.queued = False
    assert worker.elapsed(21.0) == 1


def test_unsettled_is_what_was_neither_skipped_nor_passed_on() -> None:
    worker, three = WorkerState("handle", 0), messages(3)
    worker.hold(Slice.of(list(three)), now=0.0)
    assert (worker.altered, worker.unsettled) == (False, three)
    worker.skipped.add(id(three[1]))
    assert worker.unsettled == [three[0], three[2]]
    worker.messages = [three[2]]
    assert (worker.altered, worker.unsettled) == (True, [three[2]])
    worker.release()
    assert (worker.active, worker.unsettled, worker.current) == (False, [], None)


@pytest.mark.anyio
async def test_where_a_handler_waits_is_shown_through_all_that_it_awaits() -> None:
    async def innermost() -> None:
        await anyio.sleep_forever()

    async def outer() -> None:
        await innermost()

    worker = WorkerState("handle", 0)
    async with anyio.create_task_group() as group:

        async def run() -> None:
            worker.coroutine = coroutine = outer()
            await coroutine

        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        stack = worker.stack()
        group.cancel_scope.cancel()
    assert stack.index("in outer") < stack.index("in innermost")
    assert WorkerState("handle", 0).stack() == "nowhere\n"


@pytest.mark.anyio
async def test_as_many_idle_workers_are_woken_as_asked_for() -> None:
    idle, woken = Idle(), []

    async def wait(index: int) -> None:
        await idle.wait(index)
        woken.append(index)

    async with anyio.create_task_group() as group:
        for index in range(3):
            group.start_soon(wait, index)
        await anyio.wait_all_tasks_blocked()
        assert len(idle) == 3
        idle.wake(2)
        await anyio.wait_all_tasks_blocked()
        assert (len(woken), len(idle)) == (2, 1)
        group.cancel_scope.cancel()
    assert len(idle) == 0, "a cancelled one waits no longer"
