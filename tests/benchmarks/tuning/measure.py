"""Measures the points of sweeps, each in a process of its own."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import anyio

from flowstream.client import Environment
from tests.benchmarks.bodies import slices
from tests.benchmarks.harness import Failed, begin, finish
from tests.benchmarks.tuning.distance import far_away
from tests.benchmarks.tuning.sweeps import Series, Sweep

Measured = dict[str, float]
Point = tuple[Series, int]
KEPT = ("seconds", "cpu", "messages", "peak_mib", "p50_ms", "p99_ms")


def measure(
    sweep: Sweep, url: str, rounds: int, tell: Callable[[str], None]
) -> dict[str, dict[int, Measured]]:
    """The best of the rounds at each point, by series. The streams are deleted afterwards."""
    found: dict[str, dict[int, Measured]] = {series.name: {} for series in sweep.series}
    points = [(series, point) for series in sweep.series for point in series.points]
    with _streams(sweep, url) as stream_of:
        for number in range(rounds):
            random.Random(number).shuffle(points)
            for series, point in points:
                try:
                    measured = _take(sweep, series, point, url, stream_of)
                except Failed as error:
                    tell(f"{sweep.name} {series.name} {point}: {error}")
                    continue
                best = found[series.name].get(point, measured)
                found[series.name][point] = {
                    key: min(best[key], value) if key != "messages" else value
                    for key, value in measured.items()
                }
                tell(f"{sweep.name} {series.name} {point}: {measured}")
    return {name: dict(sorted(some.items())) for name, some in found.items()}


def _take(
    sweep: Sweep, series: Series, point: int, url: str, stream_of: Callable[[Series], str]
) -> Measured:
    options: dict[str, Any] = {**series.options, sweep.option: point}
    messages = series.messages(point)
    broker = urlsplit(url)
    away = (
        far_away(broker.hostname or "localhost", broker.port or 5552, series.distance)
        if series.distance
        else nullcontext()
    )
    with away as port:
        if port is not None:
            options["through"] = port
        if series.rate is not None:
            options["rate"] = series.rate
        measured = _run(series, url, stream_of(series), messages, options)
    return {key: round(measured[key], 4) for key in KEPT if key in measured}


def _run(
    series: Series, url: str, stream: str, messages: int, options: dict[str, Any]
) -> dict[str, Any]:
    process = begin(f"tuning.side.{series.run}", url, stream, messages, options)
    if series.rate is None:
        return finish(process)
    assert process.stdout is not None
    process.stdout.readline()  # it reads the stream, from here on
    finish(begin("flowstream_side.latency_publish", url, stream, messages, options))
    return finish(process)


@contextmanager
def _streams(sweep: Sweep, url: str) -> Iterator[Callable[[Series], str]]:
    """What gives each series its stream: one for each size of chunks, and an empty one where
    messages are published meanwhile."""
    made: list[str] = []
    full: dict[int, str] = {}

    def create(messages: int, chunk: int) -> str:
        name = f"tuning.{uuid.uuid4().hex[:8]}.{sweep.name}.{len(made)}"
        anyio.run(_create, url, name, messages, chunk)
        made.append(name)
        return name

    def stream_of(series: Series) -> str:
        if series.rate is not None:
            return create(0, 1)
        if series.chunk not in full:
            most = max(
                each.messages(point)
                for each in sweep.series
                if each.chunk == series.chunk and each.rate is None
                for point in each.points
            )
            full[series.chunk] = create(most, series.chunk)
        return full[series.chunk]

    try:
        yield stream_of
    finally:
        anyio.run(_delete, url, made)


async def _create(url: str, stream: str, messages: int, chunk: int) -> None:
    """A stream of real orders. What is confirmed together is stored as one chunk."""
    async with Environment(url) as environment:
        await environment.create_stream(stream)
        async with environment.publisher(stream) as publisher:
            for some in slices(messages, chunk):
                await publisher.publish_many(some)


async def _delete(url: str, streams: list[str]) -> None:
    async with Environment(url) as environment:
        for stream in streams:
            await environment.delete_stream(stream, missing_ok=True)
