"""The tester tells what became of each message, on the stages and connectors of every run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest

from flowstream import (
    Batch,
    Drop,
    IterableProducer,
    Message,
    Pipeline,
    Producer,
    Retry,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.errors import ConfigurationError, Halted, OffsetTruncated
from flowstream.testing import (
    Crash,
    Disconnect,
    MemoryEnvironment,
    Pause,
    PipelineTester,
    StillBusy,
)

pytestmark = pytest.mark.anyio


@dataclass
class Order:
    id: int
    amount: int = 1


def orders(**options) -> Pipeline:
    """Amount 0 is dropped, -1 fails for good, -2 at the first try, -3 raises; sizes of 3."""
    pipeline = Pipeline("orders", StreamProducer("orders"), **options)

    @pipeline.processor(concurrency=2, partition_by=lambda m: m.data.id % 5)
    async def check(message: Message[Order]) -> None:
        amount = message.data.amount
        if amount == 0:
            message.drop("free")
        elif amount == -1 or (amount == -2 and message.attempt == 1):
            message.fail(f"amount {amount}")
        elif amount == -3:
            raise ValueError("minus three")

    @pipeline.batcher(size=3, batch_timeout=60)
    def load(batch: Batch[Order]) -> None:
        if any(order.amount == -4 for order in batch.data):
            raise RuntimeError("cannot load")

    return pipeline


orders()  # pydantic looks for its plugins at its first use, which blocks


async def test_a_halt_that_nobody_looked_at_is_raised():
    async def careless() -> None:
        async with PipelineTester(orders()) as tester:
            tester.put(Order(2, -1))
            await anyio.sleep(1)

    with pytest.raises(Halted):
        await careless()


def test_one_call_is_enough():
    result = PipelineTester(orders()).run_sync(Order(1), {"id": 2}, '{"id": 3}')
    assert result.ok
    assert result.statuses == ["ok"] * 3
    assert result.of("default")[0].trigger == "size"
    assert result.committed == {"orders": 2}
    assert result.run.reason == "stopped"


@pytest.mark.medium
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_slow_handler_in_a_thread_is_waited_for(backend):
    pipeline = Pipeline("slow", StreamProducer("slow"))

    @pipeline.processor(timeout=60)
    def handle(message: Message[bytes]) -> None:
        time.sleep(0.02)

    result = PipelineTester(pipeline).run_sync(*[b"x"] * 5, backend=backend)
    assert result.statuses == ["ok"] * 5


@pytest.mark.parametrize(
    ("source", "handled", "committed"),
    [
        ([Crash()], 0, {}),
        ([Pause(2), Crash()], 4, {}),
        ([Pause(10), Crash()], 4, {"orders": 3}),
    ],
)
async def test_a_crash_at_each_stage_repeats_what_was_not_committed(source, handled, committed):
    pipeline, loaded = Pipeline("orders", StreamProducer("orders")), []

    @pipeline.processor
    async def check(message: Message[Order]) -> None:
        await anyio.sleep(0.1)

    @pipeline.batcher(size=100, batch_timeout=1)
    async def load(batch: Batch[Order]) -> None:
        loaded.extend(order.id for order in batch.data)

    tester = PipelineTester(pipeline, [*map(Order, range(4)), *source, *map(Order, range(4, 8))])
    first = await tester.run()
    assert first.crashed
    assert loaded == list(range(handled))
    assert first.committed == committed
    assert first.statuses == ["ok" if handled else "open"] * 4
    second = await tester.run()
    assert not second.crashed
    start = committed.get("orders", -1) + 1
    assert [outcome.offset for outcome in second] == list(range(start, 8))
    assert loaded == [*range(handled), *range(start, 8)]
    assert second.committed == {"orders": 7}


async def test_a_crash_in_the_middle_of_a_batch_handler():
    pipeline, seen = Pipeline("orders", StreamProducer("orders")), []

    @pipeline.processor
    async def check(message: Message[Order]) -> None: ...

    @pipeline.batcher(size=2)
    async def load(batch: Batch[Order]) -> None:
        seen.append("begin")
        await anyio.sleep(100)
        seen.append("end")

    tester = PipelineTester(pipeline)
    assert (await tester.run(Order(1), Order(2), Pause(50), Crash())).statuses == ["open"] * 2
    assert (seen, tester.committed) == (["begin"], {})
    assert (await tester.run()).statuses == ["ok"] * 2


@pytest.mark.medium
async def test_a_crash_may_be_the_first_thing_that_happens():
    tester = PipelineTester(orders(), [Crash(), Order(1), Crash()])
    first = await tester.run()
    assert (first.crashed, first.outcomes, first.error) == (True, (), None)
    second = await tester.run()
    assert (second.crashed, second.statuses) == (True, ["open"])
    assert (await tester.run()).statuses == ["ok"]


async def test_a_disconnect_loses_and_repeats_nothing():
    pipeline = Pipeline("copy", StreamProducer("in"), commit_every=1)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    pipeline.sink("out", StreamSink("out"), size=2, batch_timeout=0.5)
    tester = PipelineTester(pipeline)
    source = [b"0", b"1", b"2", Disconnect(30), b"3", b"4", Disconnect(), b"5"]
    result = await tester.run(*source)
    assert result.statuses == ["ok"] * 6
    assert tester.environment.disconnects == 2
    assert tester.published("out") == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert tester.committed == {"in": 5}


async def test_a_sink_publishes_by_key_to_a_super_stream():
    pipeline = Pipeline("spread", StreamProducer("in"), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[Order]) -> None: ...

    pipeline.sink("out", StreamSink("out", key="id"), size=2, batch_timeout=0.5)
    tester = PipelineTester(pipeline)
    partitions = tester.environment.super_stream("out", 2)
    result = await tester.run(*(Order(n) for n in range(6)))
    assert result.statuses == ["ok"] * 6
    found = {
        name: [json.loads(body)["id"] for body in tester.published(name)] for name in partitions
    }
    assert found == {
        name: [n for n in range(6) if tester.environment.route("out", str(n)) == name]
        for name in partitions
    }
    assert all(found.values())


async def test_a_sink_that_refuses_is_tried_again_and_halts_in_the_end():
    pipeline = Pipeline("copy", StreamProducer("in"), retry=Retry(attempts=3))
    pipeline.processor(_nothing)
    pipeline.sink("out", StreamSink("out"), batch_timeout=0.5)
    async with PipelineTester(pipeline) as tester:
        tester.environment.refuse("out", times=2)
        first = await tester.push(b"1", b"2")
        assert [outcome.attempts for outcome in first] == [3, 3]
        assert tester.published("out") == [b"1", b"2"]
        tester.environment.refuse("out", times=3)
        (last,) = await tester.push(b"3")
    assert (last.status, last.phase, last.attempts) == ("halted", "sink", 3)
    assert "refused" in str(last.reason)
    assert tester.committed == {"in": 1}
    assert tester.result[:1] == first[:1]


async def test_a_truncated_stream_is_what_it_is():
    tester = PipelineTester(orders())
    tester.environment.chunk_size = 1
    await tester.run(*map(Order, range(3)))
    tester.put(*map(Order, range(3, 9)))
    tester.environment.stream("orders").truncate(6)
    with pytest.raises(OffsetTruncated):
        await tester.run()
    skipping = orders()
    skipping.producer.on_truncated = "skip"
    again = await PipelineTester(skipping, environment=tester.environment).run()
    assert [outcome.offset for outcome in again] == [6, 7, 8]


async def test_super_streams_by_key():
    pipeline = Pipeline("orders", SuperStreamProducer("orders", single_active=True))
    pipeline.processor(_nothing)
    async with PipelineTester(pipeline) as tester:
        a = await tester.push(b"1", b"2", key="a")
        b = await tester.push(b"3", key="b")
        with pytest.raises(ConfigurationError, match="key="):
            tester.put(b"4")
    assert {outcome.stream for outcome in a} == {tester.environment.route("orders", "a")}
    assert tester.committed[b[0].stream] >= 0
    assert (await PipelineTester(pipeline, environment=tester.environment).run()).outcomes == ()


async def test_a_run_waits_until_partitions_are_given_to_it():
    pipeline = Pipeline("orders", SuperStreamProducer("orders", single_active=True))
    pipeline.processor(_nothing)
    report = await PipelineTester(pipeline).run(b"1", b"2", key="a")
    assert report.statuses == ["ok", "ok"]


async def _nothing(message: Message[bytes]) -> None:
    """Leaves the message as it is."""


async def test_producers_of_other_kinds():
    pipeline = Pipeline("numbers", IterableProducer([1, 2, 3]))

    @pipeline.processor
    async def double(message: Message) -> int:
        return message.data * 2

    result = await PipelineTester(pipeline).run()
    assert result.data == [2, 4, 6]
    assert result.run.reason == "ended"
    other = PipelineTester(pipeline, producer=StreamProducer("any"))
    assert (await other.run(b"1")).data == [b"11"]
    with pytest.raises(ConfigurationError, match="reads no stream"):
        PipelineTester(pipeline, [b"1"])


async def test_messages_pushed_beside_a_producer_s_own():
    class Quiet(Producer):
        async def run(self, feed) -> None:
            await anyio.sleep_forever()

    pipeline = Pipeline("quiet", Quiet())

    @pipeline.processor
    def handle(message: Message[dict]) -> None:
        if not message.data:
            message.drop()

    async with PipelineTester(pipeline) as tester:
        assert (await tester.push(b"{}", b'{"a": 1}')).statuses == ["dropped", "ok"]
        assert [(o.stream, o.offset) for o in await tester.push({"b": 1})] == [("pushed", 2)]
        await tester.idle()
        assert (await tester.stop()).data == [{"a": 1}, {"b": 1}]


async def test_lifespans_of_the_pipeline_and_of_the_test():
    @asynccontextmanager
    async def opened(what: str = "real"):
        yield what

    pipeline, seen = Pipeline("resources", StreamProducer("any"), lifespan=opened), []

    @pipeline.processor
    def handle(message: Message[bytes], resource: str) -> None:
        seen.append(resource)
        message.fail("no", retry=False)

    @pipeline.on_failed
    def failed(failure, resource: str) -> Drop:
        seen.append(f"{resource} {failure.reason}")
        return Drop()

    assert (await PipelineTester(pipeline).run(b"1")).statuses == ["discarded"]
    await PipelineTester(pipeline, lifespan=lambda: opened("fake")).run(b"1")
    assert seen == ["real", "real no", "fake", "fake no"]


def test_a_fixture_of_another_event_loop_is_refused_at_once():
    """As with a fixture of pytest-asyncio for the session, and a test with a loop of its own."""
    tester = PipelineTester(orders())
    with asyncio.Runner() as session, asyncio.Runner() as test:
        session.run(tester.__aenter__())
        with pytest.raises(ConfigurationError, match=r"push: .* started on another event loop"):
            test.run(tester.push({"id": 1}))
        with pytest.raises(ConfigurationError, match=r"idle: .* started on another event loop"):
            test.run(tester.idle())
        report = session.run(tester.push({"id": 1}, {"id": 2}, {"id": 3}))  # a full batch
        assert report.ok
        session.run(tester.__aexit__(None, None, None))


@pytest.mark.slow
async def test_a_handler_that_never_ends_is_told_at_once():
    pipeline = Pipeline("stuck", StreamProducer("any"), drain_timeout=1)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep_forever()

    with pytest.raises(StillBusy, match=r"processor \(1 busy"):
        await PipelineTester(pipeline).run(b"1")


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_it_works_in_real_time_too(use_uvloop):
    pipeline = Pipeline("real", StreamProducer("any"))
    pipeline.processor(lambda message: None)
    pipeline.batcher(size=2, batch_timeout=0.01)(lambda batch: None)

    async def main() -> None:
        async with PipelineTester(pipeline) as tester:
            assert (await tester.push(b"1", b"2", b"3")).statuses == ["ok"] * 3
        assert repr(tester.result) == "<RunReport 3 ok; stopped>"
        assert (await PipelineTester(pipeline).run(b"1", Pause(0.01), Crash())).crashed

    anyio.run(main, backend="asyncio", backend_options={"use_uvloop": use_uvloop})


PLAIN = """
import sys
sys.modules.update(dict.fromkeys(("trio", "pytest", "hypothesis", "uvloop", "msgspec")))
from flowstream import Message, Pipeline, StreamProducer
from flowstream.testing import PipelineTester

pipeline = Pipeline("any", StreamProducer("any"))

@pipeline.processor
def handle(message: Message[dict]) -> None: ...

assert PipelineTester(pipeline).run_sync({"id": 1}).ok
"""


@pytest.mark.medium
def test_a_plain_install_is_enough():
    subprocess.run([sys.executable, "-W", "error", "-c", PLAIN], check=True, timeout=60)


@pytest.mark.medium
async def test_a_failing_test_leaves_the_pipeline_as_it_was():
    pipeline = orders()
    before = dict(vars(pipeline))

    async def failing() -> None:
        async with PipelineTester(pipeline) as tester:
            await tester.push(Order(1))
            raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine"):
        await failing()
    assert vars(pipeline) == before


@pytest.mark.medium
async def test_a_pipeline_that_runs_is_left_alone():
    pipeline = orders()
    other = PipelineTester(pipeline)
    async with PipelineTester(pipeline) as tester:
        with pytest.raises(ConfigurationError, match="is running already"):
            await other.run(Order(1))
        assert (await tester.push(Order(1))).ok


async def test_a_tester_is_started_first():
    tester = PipelineTester(orders())
    with pytest.raises(ConfigurationError, match="not started"):
        await tester.push(Order(1))
    with pytest.raises(ConfigurationError, match="DeadLetter"):
        tester.dead_letters()


@pytest.mark.medium
async def test_a_tester_is_not_started_twice_at_once():
    tester = PipelineTester(orders())
    async with tester:
        with pytest.raises(ConfigurationError, match="started already"):
            await tester.run(Order(1))
        assert (await tester.push(Order(1))).ok
    assert (await tester.run(Order(2))).ok


async def test_run_sync_in_an_async_test_names_what_to_write():
    with pytest.raises(RuntimeError, match=r"write `await tester\.run\(\.\.\.\)` instead"):
        PipelineTester(orders()).run_sync(Order(1))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigurationError, match="backend='curio': expected"):
        PipelineTester(orders()).run_sync(Order(1), backend="curio")  # type: ignore[arg-type]


async def test_a_plain_run_in_a_memory_environment():
    environment = MemoryEnvironment({"orders": [Order(1), Order(2), Pause(3), Order(3)]})
    pipeline = orders()
    async with pipeline.start(environment=environment) as running:
        result = await running.wait_idle(5)
    assert result.settled == {"ok": 3}
    assert environment.offsets == {("orders", "orders"): 2}


async def test_what_a_tester_runs_is_the_pipeline_as_it_is():
    """Its own producer, handlers and way to settle: nothing is put around them."""
    pipeline = Pipeline("shop", StreamProducer("orders"))

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None: ...

    async with PipelineTester(pipeline) as tester:
        result = await tester.push(*({"n": n} for n in range(3)))
        run = tester.running._run
        assert run.declaration.producer is pipeline.producer
        assert run.declaration.batchers["default"].handler is store
        assert run.ack_tracker.acknowledgers == 0
    assert result.statuses == ["ok"] * 3
    assert [batch.data for batch in result.batches] == [({"n": 0}, {"n": 1}, {"n": 2})]
