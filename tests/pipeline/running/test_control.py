"""Control while running: pause, limits, push, several pipelines, from inside handlers too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import (
    Batch,
    IterableProducer,
    Message,
    Pipeline,
    RateLimit,
)
from tests.support.callbacks import nothing
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio


async def test_a_pause_takes_nothing_in_and_lets_the_rest_go_on():
    pipeline = pipeline_of(MemoryStream(numbers(1000), slices=[1]), max_in_flight=10)

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.1)

    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.pause()
        await anyio.sleep(1)
        before = running.statistics()
        assert before.paused
        assert before.in_flight == 0
        await anyio.sleep(1000)
        assert running.statistics().received == before.received < 1000
        running.resume()
        await anyio.sleep(1)
        assert running.statistics().received > before.received
        running.pause()


@pytest.mark.medium
@pytest.mark.parametrize("rate", [20, pytest.param(300, marks=pytest.mark.slow)])
async def test_a_rate_limit_holds_within_two_percent_and_can_be_changed(rate):
    pipeline = pipeline_of(MemoryStream(numbers(20_000)), rate_limit=RateLimit(messages=rate))
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        await anyio.sleep(10)
        first = running.statistics().received
        assert first == pytest.approx(rate * 10, rel=0.02, abs=1)
        running.rate_limit = RateLimit(messages=rate * 3)
        await anyio.sleep(10)
        assert running.statistics().received - first == pytest.approx(rate * 30, rel=0.02, abs=1)
        assert running.rate_limit == RateLimit(messages=rate * 3)
        running.rate_limit = None
        await anyio.sleep(1)
        assert (await running.wait()).settled == {"ok": 20_000}


async def test_bytes_can_be_limited():
    pipeline = pipeline_of(MemoryStream([b"x" * 100] * 1000), rate_limit=RateLimit(bytes=5_000))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    async with pipeline.start() as running:
        await anyio.sleep(10)
        assert running.statistics().received == pytest.approx(500, rel=0.02)
        running.stop()


@pytest.mark.medium
@pytest.mark.parametrize("size", [1, 10_000, 8 << 20])
async def test_memory_is_bounded_in_messages_and_bytes(size):
    count = 40 if size > 1_000_000 else 2000
    window = 32 << 20 if size > 1_000_000 else 200_000
    body = b"x" * size
    pipeline = pipeline_of(
        MemoryStream([body] * count, slices=[count]), max_in_flight=100, max_in_flight_bytes=window
    )

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep(0.1)

    async with pipeline.start() as running:
        result = await running.wait()
        statistics = running.statistics()
    assert result.settled == {"ok": count}
    assert statistics.highest_in_flight <= 100
    assert statistics.highest_in_flight_bytes <= window
    assert statistics.highest_in_flight_bytes > 0.8 * min(window, 100 * size)


async def test_a_message_larger_than_the_window_goes_alone():
    pipeline = pipeline_of(MemoryStream([b"x" * 10, b"y" * 500, b"z" * 10]), max_in_flight_bytes=50)

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        await anyio.sleep(1)

    async with pipeline.start() as running:
        assert (await running.wait()).settled == {"ok": 3}
        assert running.statistics().highest_in_flight_bytes == 500


async def test_a_window_full_of_open_batches_does_not_wait_for_their_timeouts():
    triggers = []
    pipeline = pipeline_of(500, max_in_flight=50)

    @pipeline.processor(concurrency=2)
    async def route(message: Message[dict]) -> None:
        message.to(key=n_of(message) % 40)

    @pipeline.batcher(size=10, batch_timeout=3600)
    async def store(batch: Batch[dict]) -> None:
        triggers.append(batch.trigger)

    before = anyio.current_time()
    assert (await pipeline.run()).settled == {"ok": 500}
    assert anyio.current_time() - before < 60
    assert "window" in triggers


async def test_batches_end_by_their_age():
    batches = []
    pipeline = pipeline_of(MemoryStream(numbers(3), slices=[1], endless=True))
    pipeline.processor(nothing)

    @pipeline.batcher(size=10, batch_timeout=2.5)
    async def store(batch: Batch[dict]) -> None:
        batches.append((batch.size, batch.trigger, anyio.current_time()))

    async with pipeline.start():
        before = anyio.current_time()
        await anyio.sleep(10)
    ((size, trigger, when),) = batches
    assert (size, trigger) == (3, "timeout")
    assert when - before == pytest.approx(2.5, abs=0.2)


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_control_from_inside_a_handler(kind, threads):
    pipeline = pipeline_of(MemoryStream(numbers(1000), slices=[10]), max_in_flight=20)
    seen = []

    def handle(message):
        running = pipeline.running
        assert running is not None
        seen.append(running.statistics().in_flight)
        assert running.topology().pipeline == "test"
        if n_of(message) == 5:
            running.resize("processor", 3)
            running.rate_limit = RateLimit(messages=10_000)
            running.pause()
            running.resume()
        if n_of(message) == 50:
            running.stop()

    async def as_async(message: Message[dict]) -> None:
        handle(message)

    def as_sync(message: Message[dict]) -> None:
        handle(message)

    pipeline.processor(concurrency=1)(as_async if kind == "async" else as_sync)
    result = await pipeline.run()
    assert result.reason == "stopped"
    assert 51 <= result.received < 1000
    assert result.settled == {"ok": result.received}
    assert max(seen) <= 20


async def test_messages_can_be_pushed_beside_the_producer():
    got = []
    pipeline = pipeline_of(MemoryStream(numbers(5), endless=True))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        got.append((message.stream, n_of(message)))

    async with pipeline.start() as running:
        await running.push(numbers(2))
        await running.push([{"n": 7}])
        await anyio.sleep(1)
        with pytest.raises(ConfigurationError):
            await running.push(numbers(1), stream="orders")
        for wrong in (b"one body", "text", None, iter([b"1"])):
            with pytest.raises(ConfigurationError, match="push takes a list of bodies, got"):
                await running.push(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="stream=5: expected a string"):
            await running.push(numbers(1), stream=5)  # type: ignore[arg-type]
        running.stop()
        result = await running.wait()
    assert {("pushed", 0), ("pushed", 1), ("pushed", 7)} <= set(got)
    assert len(got) == 8
    assert result.committed == {"orders": 4}


async def test_wait_idle_waits_for_quiet_and_for_the_end_of_the_stream():
    producer = MemoryStream(numbers(100), slices=[10], endless=True)
    pipeline = Pipeline("test", producer)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.05)

    async with pipeline.start() as running:
        before = anyio.current_time()
        result = await running.wait_idle(2)
        assert result.settled == {"ok": 100}
        assert anyio.current_time() - before == pytest.approx(7, abs=0.5)


async def test_wait_idle_ends_with_a_finite_source():
    pipeline = Pipeline("test", IterableProducer(["{}"]))
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        assert (await running.wait_idle(50)).reason == "ended"


@pytest.mark.parametrize(
    ("stage", "workers"), [("nope", 1), ("processor", 0), ("processor", 10**9)]
)
async def test_a_resize_that_cannot_be(stage, workers):
    pipeline = pipeline_of(MemoryStream(numbers(3), endless=True))
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        with pytest.raises(ConfigurationError, match="resize"):
            running.resize(stage, workers)
        with pytest.raises(ConfigurationError, match="RateLimit"):
            running.rate_limit = 5  # type: ignore[assignment]


async def test_waiting_until_idle_tells_of_a_run_that_goes_on():
    producer = MemoryStream(numbers(5), endless=True)
    pipeline = pipeline_of(producer, commit_interval=1000.0)
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        idle = await running.wait_idle(2.0)
        assert (idle.reason, idle.error) == ("running", None)
        assert idle.seconds == pytest.approx(2.0, abs=0.5)
        assert (idle.settled, idle.committed) == ({"ok": 5}, {"orders": 4})
        assert producer.stored == {"orders": 4}
        running.stop()
        result = await running.wait()
    assert (result.reason, result.committed) == ("stopped", {"orders": 4})


CONTROLS = {
    "pause": lambda running: running.pause(),
    "resume": lambda running: running.resume(),
    "resize": lambda running: running.resize("processor", 2),
    "limit": lambda running: setattr(running, "rate_limit", RateLimit(messages=5)),
    "statistics": lambda running: running.statistics(),
    "stop": lambda running: running.stop(),
    "abort": lambda running: running.abort(),
}


def in_a_thread(function):
    """What a thread that knows no event loop gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=15)


@pytest.mark.parametrize("name", CONTROLS)
async def test_every_thread_may_control(name, threads):
    pipeline = pipeline_of(MemoryStream(numbers(5), endless=True))
    pipeline.processor(nothing)
    async with pipeline.start() as running:
        control = CONTROLS[name]
        await anyio.to_thread.run_sync(in_a_thread, lambda: control(running))
        if name == "pause":
            assert running.paused
        elif name == "resize":
            assert running.statistics().stages[0].concurrency == 2
        elif name == "limit":
            assert running.rate_limit == RateLimit(messages=5)
        elif name in ("stop", "abort"):
            await running.wait()
        running.stop()
        await running.wait()
        control(running)  # of a run that is over: it changes nothing
        await anyio.to_thread.run_sync(in_a_thread, lambda: control(running))
    assert running.phase == "stopped"


async def test_a_push_from_inside_a_handler_does_not_wait_for_itself():
    got = []
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[20]), max_in_flight=2)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        got.append(n_of(message))
        if message.stream == "orders":
            await pipeline.running.push([{"n": 100 + n_of(message)}])

    with anyio.fail_after(100):
        assert (await pipeline.run()).settled == {"ok": 40}
    assert sorted(got) == [*range(20), *range(100, 120)]


async def test_a_resize_at_the_last_moment_does_not_keep_batches_open():
    pipeline = pipeline_of(MemoryStream(numbers(30), endless=True), drain_timeout=500)
    pipeline.processor(nothing)

    @pipeline.batcher(size=20, batch_timeout=400)
    async def store(batch: Batch[dict]) -> None:
        await anyio.sleep(1)

    async with pipeline.start() as running:
        await anyio.sleep(0.5)
        running.resize("default", 3)
        before = anyio.current_time()
        running.stop()
        assert (await running.wait()).settled == {"ok": 30}
        assert anyio.current_time() - before < 60
        running.resize("default", 2)  # too late to matter, and no error


async def test_a_run_that_is_aborted_while_it_starts_has_a_result():
    class SlowToOpen(MemoryStream):
        async def open(self, context) -> None:
            await anyio.sleep(100)

    pipeline = pipeline_of(SlowToOpen(numbers(5)))
    pipeline.processor(nothing)

    async def abort() -> None:
        await anyio.sleep(1)
        pipeline.running.abort()

    async with anyio.create_task_group() as group:
        group.start_soon(abort)
        with anyio.fail_after(10):
            result = await pipeline.run()
    assert (result.reason, result.received) == ("aborted", 0)
    assert pipeline.running is None
