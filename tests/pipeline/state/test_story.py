"""At level info a run tells its story: once for what happens once, and nothing per message."""

from __future__ import annotations

import logging
import re
from typing import Any

import anyio
import pytest

from flowstream import __version__
from flowstream.errors import Halted
from flowstream.pipeline import Batch, Drop, Message, Pipeline, RateLimit, Retry
from flowstream.telemetry import Controlled
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of, when

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowstream")


def story(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [re.sub(r"\d+\.\d+ s", "T", each.getMessage()) for each in caplog.records]


async def test_a_run_from_start_to_end(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(
        MemoryStream(numbers(5_000), endless=True), retry=Retry(attempts=3), on_failure=Drop()
    )

    @pipeline.processor(concurrency=4)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 7:
            message.fail("no sevens", retry=False)

    @pipeline.batcher("load", size=500)
    async def load(batch: Batch[dict]) -> None: ...

    async with pipeline.start() as running:
        await when(lambda: running.statistics().received == 5_000)
        await anyio.sleep(1000)
        running.stop(by="SIGTERM")
        await running.wait()
    assert story(caplog)[:2] == [
        f"pipeline 'test' starts (flowstream {__version__}): MemoryStream -> processor (4 workers) "
        "-> load (1 worker); failures: 3 attempts, then Drop; at most 10,000 messages in flight",
        "pipeline 'test' is running, T after its start",
    ]
    assert "pipeline 'test' committed orders@4,999, 5,000 messages are settled" in story(caplog)
    asked = story(caplog).index("pipeline 'test': asked to stop, by SIGTERM")
    assert story(caplog)[asked + 1 :] == [
        "pipeline 'test' drains, stopped by SIGTERM: 0 messages in flight, 25 s at most",
        *(
            f"pipeline 'test' drain: {step} took T, 0 messages are in flight"
            for step in ("finish slices", "flush batches", "finish batches", "settle")
        ),
        "pipeline 'test' drain: committed and verified orders@4,999 (T)",
        "pipeline 'test' has ended (stopped by SIGTERM) after T: 5,000 received, 1 discarded, "
        "4,999 ok",
    ]
    assert len(story(caplog)) < 20
    assert all(vars(record)["pipeline"] == "test" for record in caplog.records)


@pytest.mark.slow
async def test_commits_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(2_000, commit_interval=1.0, commit_every=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(1)

    await pipeline.run()
    told = [text for text in story(caplog) if " committed " in text]
    assert 6 <= len(told) <= 9
    assert re.search(r"\(\d{3} more since the last record of this\)", told[1])


async def test_a_drain_counts_what_is_in_flight(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(MemoryStream(numbers(10), endless=True))
    going_on = anyio.Event()

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.batcher(size=100, batch_timeout=60)
    async def load(batch: Batch[dict]) -> None:
        await anyio.sleep(3)

    async with pipeline.start() as running:
        await when(lambda: running.statistics().in_flight == 10)
        going_on.set()
    text = "\n".join(each.getMessage() for each in caplog.records)
    assert "drains, stopped by the end of its block: 10 messages in flight, 25 s at most" in text
    assert "drain: finish batches took 3.00 s, 0 messages are in flight" in text


async def test_an_end_by_a_failure_says_why(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(MemoryStream(numbers(10), endless=True))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 3:
            message.fail("no threes")

    with pytest.raises(Halted):
        await pipeline.run()
    (drains,) = (text for text in story(caplog) if "drains" in text)
    assert "pipeline 'test' drains, after Halted:" in drains
    end = story(caplog)[-1]
    assert "has ended (halted) after T: 10 received, 3 ok, 7 not settled; Halted: " in end
    assert "no threes" in end


async def test_an_end_of_the_source(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(3)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    await pipeline.run()
    assert any("drains, its source has ended: " in text for text in story(caplog))
    assert "(its source has ended) after T: 3 received, 3 ok" in story(caplog)[-1]


async def test_who_controls_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    pipeline = pipeline_of(MemoryStream(numbers(1), endless=True))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    async with pipeline.start(telemetry=recorder.telemetry) as running:
        running.pause(by="the live page")
        running.pause()  # changes nothing
        running.resume()
        running.rate_limit = RateLimit(messages=100)
        running.rate_limit = RateLimit(messages=100)
        running.set_rate_limit(None, by="alice")
        running.resize("processor", 3, by="alice")
        running.abort(by="bob")
    told = [text for text in story(caplog) if ", by " in text]
    assert told == [
        "pipeline 'test': paused, by the live page",
        "pipeline 'test': resumed, by the program",
        "pipeline 'test': limited to 100 messages every 1 s, by the program",
        "pipeline 'test': the rate limit was removed, by alice",
        "pipeline 'test': 'processor' resized from 1 to 3 workers, by alice",
        "pipeline 'test': aborted, by bob",
    ]
    assert [(event.action, event.by) for event in recorder.of(Controlled)] == [
        ("pause", "the live page"),
        ("resume", "the program"),
        ("rate_limit", "the program"),
        ("rate_limit", "alice"),
        ("resize", "alice"),
        ("abort", "bob"),
    ]
    assert "(aborted by bob)" in story(caplog)[-1]


async def test_slow_handlers_are_named(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(40, slow_after=2.0)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) % 2:
            await anyio.sleep(5)

    @pipeline.batcher("load", size=40, batch_timeout=1000)
    async def load(batch: Batch[dict]) -> None:
        await anyio.sleep(30)

    await pipeline.run()
    told = [record for record in caplog.records if "is slow" in record.getMessage()]
    first, again, batch = (record.getMessage() for record in told)
    assert first == (
        "pipeline 'test': handler of 'processor' is slow: it has been running for 2 s with orders@1"
    )
    assert re.search(r"with orders@\d+ \(1[12] more since the last record of this\)$", again)
    assert "handler of 'load' is slow: it has been running for 2 s with 40 messages" in batch
    place = {"pipeline": "test", "stage": "processor", "stream": "orders", "offset": 1}
    assert vars(told[0]).items() >= place.items()
    assert told[0].levelno == logging.INFO


@pytest.mark.medium
async def test_commits_that_fail_are_one_record_and_so_is_their_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Forgetful(MemoryStream):
        failing = False

        async def run(self, intake: Any) -> None:
            partitions = [intake.open(f"orders-{number}") for number in range(12)]
            for number in range(2_000):
                await partitions[number % 12].send([b"{}"])
                await anyio.sleep(0.1)

        async def commit(self, stream: str, offset: int) -> None:
            if self.failing:
                raise ConnectionError("the broker does not answer")
            await super().commit(stream, offset)

    producer = Forgetful([])
    pipeline = Pipeline("test", producer, commit_interval=1.0)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    async with pipeline.start() as running:
        await anyio.sleep(10)
        producer.failing = True
        await anyio.sleep(50)
        producer.failing = False
        await anyio.sleep(10)
        running.stop()
        await running.wait()
    warnings = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]
    failed, back = (text for text in warnings if "more like it in the last minute" not in text)
    assert len(warnings) == 3
    assert "commit of orders-0@" in failed
    assert " failed: ConnectionError: the broker does not answer (it is tried again" in failed
    assert "pipeline 'test' commits again, after 5" in back
