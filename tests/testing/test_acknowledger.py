"""What a source's own acknowledger is told, as the caller acknowledger keeps it."""

from __future__ import annotations

import anyio
import pytest

from flowstream import Acknowledger, Batch, Drop, Halt, Intake, Message, Pipeline, Producer
from flowstream.testing import CallerAcknowledger, PipelineTester

pytestmark = pytest.mark.anyio


class Jobs(Producer):
    """A source that is acknowledged message by message."""

    def __init__(self, jobs: list[bytes], acknowledger: Acknowledger) -> None:
        self.jobs = jobs
        self.acknowledger = acknowledger

    async def run(self, intake: Intake) -> None:
        partition = intake.open("jobs", commits=False, acknowledger=self.acknowledger)
        await partition.send(self.jobs)
        await anyio.sleep_forever()


def jobs_of(caller: CallerAcknowledger) -> list[tuple[bytes, str]]:
    return [(message.raw, outcome) for message, outcome in caller.acknowledged]


async def test_a_caller_waits_for_what_is_settled():
    caller = CallerAcknowledger()
    pipeline = Pipeline("jobs", Jobs([b"1", b"2", b"3"], caller), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep(10)
        if message.data == b"2":
            message.fail("two")
        if message.data == b"3":
            message.drop()

    async with pipeline.start():
        assert len(await caller.wait_for(3)) == 3
    assert sorted(jobs_of(caller)) == [(b"1", "ok"), (b"2", "discarded"), (b"3", "dropped")]


async def test_the_tester_tells_the_source_s_own_acknowledger_too():
    inner = CallerAcknowledger()
    caller = CallerAcknowledger(inner)
    pipeline = Pipeline("jobs", Jobs([b"1"], caller))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    result = await PipelineTester(pipeline).run()
    assert result.statuses == ["ok"]
    assert jobs_of(inner) == jobs_of(caller) == [(b"1", "ok")]


class Refuses(Acknowledger):
    async def acknowledge(self, messages, outcome) -> None:
        raise ConnectionError("gone")


async def test_what_the_inner_one_refuses_is_not_settled():
    caller = CallerAcknowledger(Refuses())
    pipeline = Pipeline("jobs", Jobs([b"1"], caller))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    result = await PipelineTester(pipeline).run()
    assert result.statuses == ["open"]
    assert "gone" in str(result.error)
    assert caller.acknowledged == []


@pytest.mark.parametrize(("policy", "told"), [(Drop(), [(b"1", "discarded")]), (Halt(), [])])
@pytest.mark.parametrize("bad_first", [True, False])
async def test_a_message_of_several_batchers_is_told_once_with_its_worst_outcome(
    policy, told, bad_first
):
    caller = CallerAcknowledger()
    pipeline = Pipeline("jobs", Jobs([b"1"], caller), on_failure=policy)

    @pipeline.processor
    async def route(message: Message[bytes]) -> None:
        message.to("good", "bad")

    @pipeline.batcher("good", batch_timeout=2)
    async def good(batch: Batch) -> None: ...

    @pipeline.batcher("bad", batch_timeout=1 if bad_first else 3)
    async def bad(batch: Batch) -> None:
        raise ValueError("bad")

    async with pipeline.start() as running:
        await anyio.sleep(10)
        running.stop()
        await running.wait()
    assert jobs_of(caller) == told
