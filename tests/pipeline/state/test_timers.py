"""Callbacks come in time; what waits for longer than a drain lasts is given up when it begins."""

from __future__ import annotations

import anyio
import pytest

from flowstream.pipeline.state.timers import Timers

pytestmark = pytest.mark.anyio


async def test_an_earlier_callback_does_not_wait_for_a_later_one() -> None:
    timers, called = Timers(anyio.current_time), []
    begun = anyio.current_time()

    def call(name: str) -> None:
        called.append((name, round(anyio.current_time() - begun, 1)))

    async with anyio.create_task_group() as group:
        group.start_soon(timers.run)
        timers.at(begun + 20, lambda: call("late"))
        await anyio.sleep(1)
        timers.at(begun + 10, lambda: call("early"))
        await anyio.sleep(30)
        group.cancel_scope.cancel()
    assert called == [("early", 10.0), ("late", 20.0)]


async def test_a_parked_callback_is_resumed_or_given_up_once() -> None:
    timers = Timers(anyio.current_time)
    called: list[tuple[str, float]] = []
    begun = anyio.current_time()

    def park(due: float) -> None:
        timers.park(begun + due, lambda: called.append(("resume", due)),
                    lambda: called.append(("give up", due)))  # fmt: skip

    async with anyio.create_task_group() as group:
        group.start_soon(timers.run)
        for due in (5, 10, 50):
            park(due)
        await anyio.sleep(6)
        assert list(called) == [("resume", 5)]
        timers.end_at(begun + 20)
        assert list(called) == [("resume", 5), ("give up", 50)]
        park(30)
        assert list(called)[-1] == ("give up", 30), "it would outlast the drain"
        await anyio.sleep(60)
        group.cancel_scope.cancel()
    assert called == [("resume", 5), ("give up", 50), ("give up", 30), ("resume", 10)]
