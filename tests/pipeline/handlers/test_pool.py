"""A pool keeps its number of workers: they are replaced when they crash, added and taken away."""

from __future__ import annotations

import anyio
import pytest

from flowstream.pipeline import PipelineOptions, ProcessorOptions, Slice
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import Telemetry

pytestmark = pytest.mark.anyio


class Waiting(Pool):
    """Workers that wait until they are woken; with `failing` the next one to wake crashes."""

    def __init__(self, concurrency: int) -> None:
        state = RunState("test", PipelineOptions(), Telemetry(), {})
        super().__init__(state, ProcessorOptions(concurrency=concurrency), "processor", 5.0)
        self.failing = False
        self.crashes: list[tuple[int, str]] = []

    def resize(self, workers: int) -> None:
        self.set_workers(workers)

    async def work(self, worker: WorkerState) -> None:
        while worker.index < self.concurrency:
            await self.idle_workers.wait(worker.index)
            if self.failing:
                self.failing = False
                raise SystemExit(worker.index)

    async def crashed(self, worker: WorkerState, error: BaseException) -> None:
        self.crashes.append((worker.index, type(error).__name__))
        self.release(worker)


async def test_workers_are_as_many_as_asked_for() -> None:
    pool = Waiting(2)
    async with anyio.create_task_group() as group:
        pool.start(group)
        for asked in (2, 5, 1, 3):
            pool.resize(asked)
            await anyio.wait_all_tasks_blocked()
            assert sorted(pool.workers) == list(range(asked))
            assert len(pool.idle_workers) == asked
        group.cancel_scope.cancel()


async def test_a_worker_that_crashed_works_again() -> None:
    pool = Waiting(2)
    async with anyio.create_task_group() as group:
        pool.start(group)
        await anyio.wait_all_tasks_blocked()
        pool.failing = True
        pool.idle_workers.wake(1)
        await anyio.wait_all_tasks_blocked()
        assert [name for _, name in pool.crashes] == ["SystemExit"]
        assert (sorted(pool.workers), len(pool.idle_workers)) == ([0, 1], 2)
        group.cancel_scope.cancel()


async def test_worker_seconds_are_busy_or_idle() -> None:
    pool = Waiting(2)
    async with anyio.create_task_group() as group:
        pool.start(group)
        await anyio.sleep(10)
        worker = pool.workers[0]
        worker.hold(Slice.of([]), pool.state.clock())
        await anyio.sleep(5)
        assert pool.busy == 1
        assert pool.times(pool.state.clock()) == pytest.approx({"busy": 5, "idle": 25})
        pool.release(worker)
        await anyio.sleep(10)
        assert pool.busy == 0
        assert pool.times(pool.state.clock()) == pytest.approx({"busy": 5, "idle": 45})
        group.cancel_scope.cancel()


async def test_a_handler_has_a_scope_to_be_ended_by_while_it_works() -> None:
    pool = Waiting(1)
    worker = WorkerState("processor", 0)
    with pool.working(worker) as scope:
        assert (worker.at_work, worker.scope) == (True, scope)
        assert scope is not None
        scope.cancel()
        await anyio.sleep(10)
    assert scope.cancelled_caught
    assert (worker.at_work, worker.scope) == (False, None)


async def test_a_closed_pool_starts_no_worker() -> None:
    pool = Waiting(1)
    async with anyio.create_task_group() as group:
        pool.start(group)
        await anyio.wait_all_tasks_blocked()
        pool.close()
        pool.resize(4)
        assert sorted(pool.workers) == [0]
        group.cancel_scope.cancel()
