"""Tasks beside a block: as in a group of anyio, also where another task leaves the block."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from flowstream.blocks import BlockTasks
from flowstream.client import Environment
from flowstream.connectors import StreamProducer
from flowstream.errors import Halted
from flowstream.pipeline import Message, Pipeline
from flowstream.testing import PipelineTester, broker, broker_in_thread
from tests.support.callbacks import nothing
from tests.support.pipelines import pipeline_of


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Each call of its `run` is a task of its own, as fixtures and tests of pytest-asyncio are."""
    with asyncio.Runner() as runner:
        yield runner


# -- as a group


@pytest.mark.anyio
@pytest.mark.both_backends
async def test_the_task_that_entered_leaves_as_it_leaves_a_group() -> None:
    ended: list[str] = []

    async def short(name: str) -> None:
        await anyio.sleep(0)
        ended.append(name)

    async def served(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep_forever()

    async with BlockTasks() as tasks:
        tasks.start_soon(short, "a")
        await tasks.start(served)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel()
    assert ended == ["a"]
    assert tasks.cancelled


@pytest.mark.anyio
@pytest.mark.both_backends
async def test_a_task_that_fails_cancels_the_block() -> None:
    async def broken() -> None:
        raise KeyError("defect")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block raises as it is left
        async with BlockTasks() as tasks:
            tasks.start_soon(broken)
            await anyio.sleep_forever()
    assert caught.group_contains(KeyError)


# -- left by another task


def test_another_task_waits_for_the_tasks(runner: asyncio.Runner) -> None:
    ended: list[str] = []

    async def short() -> None:
        await anyio.sleep(0.01)
        ended.append("short")

    tasks = runner.run(entered(short))
    runner.run(tasks.__aexit__(None, None, None))
    assert ended == ["short"]


async def entered(function: Callable[[], Any]) -> BlockTasks:
    tasks = await BlockTasks().__aenter__()
    tasks.start_soon(function)
    return tasks


@pytest.mark.parametrize("how", ["error", "cancel", "timeout"])
def test_another_task_ends_the_tasks(runner: asyncio.Runner, how: str) -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("long")

    async def leave() -> None:
        error = ValueError("the block's own") if how == "error" else None
        if how == "cancel":
            tasks.cancel()
        with anyio.move_on_after(0.01 if how == "timeout" else None) as scope:
            await tasks.__aexit__(type(error) if error else None, error, None)
        assert scope.cancelled_caught is (how == "timeout")

    tasks = runner.run(entered(long))
    runner.run(leave())
    assert ended == ["long"]


def test_an_error_while_nobody_can_be_cancelled_is_raised_at_the_end(
    runner: asyncio.Runner,
) -> None:
    async def broken() -> None:
        raise KeyError("defect")

    tasks = runner.run(entered(broken))
    runner.run(asyncio.sleep(0))
    with pytest.raises(ExceptionGroup) as caught:
        runner.run(tasks.__aexit__(None, None, None))
    assert caught.group_contains(KeyError)


# -- what users open in fixtures


@asynccontextmanager
async def everything() -> AsyncIterator[tuple[Any, ...]]:
    """As fixtures that use each other."""
    async with broker() as running, Environment(running.url) as environment:
        await environment.create_stream("orders")
        publisher, consumer = environment.publisher("orders"), environment.consumer("orders")
        async with publisher, consumer:
            yield environment, publisher, consumer
    assert environment.statistics()["tasks"] == 0


def test_a_broker_and_its_clients_are_closed_by_another_task(runner: asyncio.Runner) -> None:
    opened = everything()
    _, publisher, consumer = runner.run(opened.__aenter__())
    runner.run(publisher.publish(b"1"))
    assert runner.run(anext(consumer)).bodies == [b"1"]
    runner.run(opened.__aexit__(None, None, None))


def test_a_pipeline_is_drained_by_another_task(runner: asyncio.Runner) -> None:
    pipeline = pipeline_of(5)
    pipeline.processor(nothing)
    started = pipeline.start()
    running = runner.run(started.__aenter__())
    runner.run(started.__aexit__(None, None, None))
    assert running.phase == "stopped"
    assert runner.run(running.wait()).settled == {"ok": 5}


def test_the_error_of_a_run_is_raised_by_another_task(runner: asyncio.Runner) -> None:
    pipeline = pipeline_of(5)

    @pipeline.processor
    async def fail(message: Message[dict]) -> None:
        raise ValueError("no")

    started = pipeline.start()
    runner.run(started.__aenter__())
    with pytest.raises(Halted):
        runner.run(started.__aexit__(None, None, None))


class Shop(unittest.IsolatedAsyncioTestCase):
    """unittest's own: set up, run and ended in three tasks."""

    async def asyncSetUp(self) -> None:
        pipeline = Pipeline("shop", StreamProducer("orders"))
        pipeline.processor(nothing)
        self.tester = await self.enterAsyncContext(PipelineTester(pipeline))

    async def test_what_is_pushed_is_handled(self) -> None:
        assert (await self.tester.push({"n": 1}, {"n": 4})).ok


def test_a_program_can_end_without_leaving(runner: asyncio.Runner) -> None:
    """As a notebook does that is closed."""
    with broker_in_thread() as running:
        runner.run(Environment(running.url).__aenter__())
        runner.close()
