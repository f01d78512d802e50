"""The pipelines whose options are varied. Each is measured from its first message to its last."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import anyio

from flowstream.client import Address, Environment
from flowstream.connectors import StreamProducer
from flowstream.pipeline import Batch, Message, Pipeline
from tests.benchmarks.measuring import Latencies, Stopwatch, Target
from tests.benchmarks.shapes import Order
from tests.benchmarks.sink_side import destination
from tests.benchmarks.tuning.sweeps import WAIT

TRANSACTION, ROW = 0.010, 10e-6
"""Seconds that the target of `slow_target` takes for a batch, and for each row of it."""


class Count:
    """Counts messages; when all are there, takes the time and ends the run."""

    def __init__(self, pipeline: Pipeline, messages: int) -> None:
        self._pipeline = pipeline
        self._left = self._messages = messages
        self._watch: Stopwatch | None = None
        self._lock = threading.Lock()  # handlers may be threads
        self.measured: dict[str, Any] = {}

    def begin(self) -> None:
        if self._watch is None:
            self._watch = Stopwatch()

    def take(self, count: int) -> None:
        with self._lock:
            self._left -= count
            if self._left > 0 or self.measured:
                return
            assert self._watch is not None
            assert self._pipeline.running is not None
            self.measured = self._watch.stop(self._messages - self._left)
            self._pipeline.running.abort()


async def waiting(target: Target) -> dict[str, Any]:
    """Handlers that wait for a service; `threads`: as plain functions."""
    options = dict(target.options)
    threads, concurrency = options.pop("threads", False), options["concurrency"]
    pipeline = _pipeline(target, max_threads=max(40, concurrency), **_window(options))
    count = Count(pipeline, target.messages)

    def handle(message: Message[bytes]) -> None:
        count.begin()
        time.sleep(WAIT)
        count.take(1)

    async def handle_async(message: Message[bytes]) -> None:
        count.begin()
        await anyio.sleep(WAIT)
        count.take(1)

    pipeline.processor(concurrency=concurrency)(handle if threads else handle_async)
    return await _run(pipeline, target, count)


async def rows(target: Target) -> dict[str, Any]:
    """Into a database, exactly once."""
    with destination(target.options["kind"], once=True) as sink:
        pipeline = _pipeline(target)
        watch: Stopwatch | None = None
        left = target.messages

        @pipeline.processor
        async def handle(message: Message[Order]) -> None:
            nonlocal watch, left
            watch = watch or Stopwatch()
            left -= 1
            if not left:
                assert pipeline.running is not None
                pipeline.running.stop()

        pipeline.sink("rows", sink, size=target.options["size"])
        result = await pipeline.run(url=target.url, tune_gc=True)
        assert watch is not None
        return watch.stop(result.settled["ok"])


async def empty_batches(target: Target) -> dict[str, Any]:
    """A batch handler that does nothing."""
    pipeline = _pipeline(target, credit=target.options.get("credit", 10))
    count = Count(pipeline, target.messages)

    @pipeline.batcher(size=target.options["size"])
    async def take(batch: Batch[bytes]) -> None:
        count.begin()
        count.take(batch.size)

    return await _run(pipeline, target, count)


async def slow_target(target: Target) -> dict[str, Any]:
    """A batch handler that waits for a target, which takes several batches at a time."""
    options = dict(target.options)
    pipeline = _pipeline(target, **_window(options))
    count = Count(pipeline, target.messages)

    @pipeline.batcher(size=options["size"], concurrency=options["concurrency"])
    async def insert(batch: Batch[bytes]) -> None:
        count.begin()
        await anyio.sleep(TRANSACTION + batch.size * ROW)
        count.take(batch.size)

    return await _run(pipeline, target, count)


async def batch_latency(target: Target) -> dict[str, Any]:
    """From sending to the batch handler, at a rate that leaves most of the time idle."""
    latencies = Latencies(target)
    pipeline = _pipeline(target)

    @pipeline.batcher(size=target.options["size"], batch_timeout=target.options["batch_timeout"])
    async def take(batch: Batch[bytes]) -> None:
        if [latencies.take(body) for body in batch.data][-1]:
            assert pipeline.running is not None
            pipeline.running.stop()

    async with pipeline.start(url=target.url, tune_gc=True) as running:
        print('{"ready": true}', flush=True)
        (await running.wait()).raise_for_error()
    return latencies.result()


def _pipeline(target: Target, *, credit: int = 10, **options: Any) -> Pipeline:
    source = StreamProducer(
        target.stream, reference=f"tuning-{uuid.uuid4().hex}", credit=credit, offset="first"
    )
    return Pipeline("tuning", source, **options)


def _window(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("max_in_flight",) if name in options}


async def _run(pipeline: Pipeline, target: Target, count: Count) -> dict[str, Any]:
    port = target.options.get("through")
    if port is None:
        result = await pipeline.run(url=target.url, tune_gc=True)
    else:
        reached = Address("127.0.0.1", port)
        async with Environment(target.url, address_resolver=lambda _: reached) as environment:
            result = await pipeline.run(environment=environment, tune_gc=True)
    assert count.measured, result
    return count.measured
