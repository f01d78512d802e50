"""`flowstream bench`: throughput and latency of this client with a broker."""

from __future__ import annotations

import secrets
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import typer

from flowstream.cli.connection.connect import connect
from flowstream.cli.event_loop import on_signal, run_async
from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.output.console import note, print_json
from flowstream.cli.output.progress import doing
from flowstream.cli.output.tables import print_rows
from flowstream.client import Environment

SLICE = 100
"""Messages passed to the publisher at once."""

SINGLE = 1_000
"""The largest number of messages that are published one at a time."""

DELIVERY_RATE = 500.0
"""Messages a second in the measurement of delivery."""

CLOSING = 10.0
"""Seconds allowed for deleting the stream."""

STAMP = struct.Struct("!Q")
"""The start of a body: the time when it was published, in ns of this machine's clock."""


COLUMNS = ["measured", "messages", "seconds", "messages_per_s", "MB_per_s", "p50_ms", "p99_ms"]


@dataclass(frozen=True, slots=True)
class Plan:
    """At most `messages` of `size` bytes, and at most `seconds` for each measurement."""

    url: str = field(repr=False)
    messages: int
    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table. `latencies` are in seconds."""

    name: str
    messages: int
    seconds: float
    size: int
    latencies: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The row: rates, and the median and 99th percentile in milliseconds."""
        rate = self.messages / self.seconds if self.seconds > 0 else 0.0
        return {
            "measured": self.name,
            "messages": self.messages,
            "seconds": round(self.seconds, 3),
            "messages_per_s": round(rate),
            "MB_per_s": round(rate * self.size / 1e6, 2),
            "p50_ms": _ms(percentile(self.latencies, 0.5)),
            "p99_ms": _ms(percentile(self.latencies, 0.99)),
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def bench(*, messages: int, seconds: float, size: int, url: str, json: bool) -> None:
    plan = Plan(url, messages, seconds, size)
    found: list[Measured] = []
    finished = run_async(_bench, plan, found)
    rows = [measured.row() for measured in found]
    if json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, empty="nothing was measured")
    if not finished:
        note("interrupted; the stream was deleted")
        raise typer.Exit(ExitCode.FORCED)


async def _bench(plan: Plan, found: list[Measured]) -> bool:
    """Measure into `found`. Returns False if a signal ended it."""
    finished = False
    async with (
        connect(plan.url) as environment,
        anyio.create_task_group() as group,
    ):
        group.start_soon(on_signal, group.cancel_scope.cancel)
        async with _temporary_stream(environment) as stream:
            for number, (name, measure) in enumerate(MEASUREMENTS.items(), 1):
                title = f"measuring {name} ({number} of {len(MEASUREMENTS)})"
                with doing(title, limit=plan.seconds):
                    found.append(await measure(environment, stream, plan, name))
        finished = True
        group.cancel_scope.cancel()
    return finished


@asynccontextmanager
async def _temporary_stream(environment: Environment) -> AsyncIterator[str]:
    """A stream with a random name, which is always deleted."""
    name = f"flowstream-bench-{secrets.token_hex(6)}"
    await environment.create_stream(name)
    note(f"measuring in the stream {name}, which is deleted afterwards")
    deleted = False
    try:
        yield name
    finally:
        with anyio.move_on_after(CLOSING, shield=True), doing(f"deleting the stream {name}"):
            try:
                await environment.delete_stream(name, missing_ok=True)
                deleted = True
            finally:
                if not deleted:
                    note(f"not deleted; delete it with: flowstream streams delete {name}")


async def _publish(environment: Environment, stream: str, plan: Plan, name: str) -> Measured:
    """Publish as fast as the limit of unconfirmed messages allows."""
    clock = time.perf_counter
    times = ConfirmTimes(0)
    async with environment.publisher(
        stream, on_confirm=lambda ids: times.confirmed(ids, clock())
    ) as publisher:
        first = times.next = publisher.statistics()["next_publishing_id"]
        start = clock()
        while (left := plan.messages - (times.next - first)) and clock() - start < plan.seconds:
            count = min(SLICE, left)
            times.sent(count, clock())
            await publisher.send_many([bytes(plan.size)] * count)
        await publisher.flush()
        seconds = clock() - start
    return Measured(name, times.next - first, seconds, plan.size, times.seconds)


async def _consume(environment: Environment, stream: str, plan: Plan, name: str) -> Measured:
    """Consume from the first message to the current end."""
    last = await environment.last_offset(stream)
    count = 0
    start = time.perf_counter()
    async with environment.consumer(stream, offset="first") as consumer:
        with anyio.move_on_after(plan.seconds):
            async for delivery in consumer:
                count += len(delivery)
                if last is None or delivery.offsets[-1] >= last:
                    break
        seconds = time.perf_counter() - start
    return Measured(name, count, seconds, plan.size)


async def _publish_one_by_one(
    environment: Environment, stream: str, plan: Plan, name: str
) -> Measured:
    """Publish each message after the confirm of the one before."""
    clock = time.perf_counter
    latencies: list[float] = []
    async with environment.publisher(stream) as publisher:
        start = clock()
        while len(latencies) < min(SINGLE, plan.messages) and clock() - start < plan.seconds:
            sent = clock()
            await publisher.publish(bytes(plan.size))
            latencies.append(clock() - sent)
        seconds = clock() - start
    return Measured(name, len(latencies), seconds, plan.size, latencies)


async def _deliver(environment: Environment, stream: str, plan: Plan, name: str) -> Measured:
    """Publish at a steady rate, and measure the time until delivery."""
    latencies: list[float] = []
    wanted = min(plan.messages, max(1, int(plan.seconds * DELIVERY_RATE)))
    start = time.perf_counter()
    async with (
        environment.consumer(stream, offset="next") as consumer,
        environment.publisher(stream) as publisher,
        anyio.create_task_group() as group,
    ):

        async def send() -> None:
            for bodies in _stamped_bodies(wanted, plan.size):
                await publisher.send_many(bodies)
                await anyio.sleep(len(bodies) / DELIVERY_RATE)
            await publisher.flush()
            await anyio.sleep(plan.seconds)  # for the last messages to arrive
            group.cancel_scope.cancel()

        group.start_soon(send)
        async for delivery in consumer:
            now = time.perf_counter_ns()
            latencies += [(now - STAMP.unpack_from(body)[0]) / 1e9 for body in delivery.bodies]
            if len(latencies) >= wanted:
                break
        group.cancel_scope.cancel()
    seconds = time.perf_counter() - start
    return Measured(name, len(latencies), seconds, plan.size, latencies)


def _stamped_bodies(messages: int, size: int) -> Iterator[list[bytes]]:
    """Bodies that begin with the current time, five at a time."""
    padding = bytes(size - STAMP.size)
    for first in range(0, messages, 5):
        count = min(5, messages - first)
        yield [STAMP.pack(time.perf_counter_ns()) + padding for _ in range(count)]


MEASUREMENTS: dict[str, Callable[[Environment, str, Plan, str], Awaitable[Measured]]] = {
    "publish": _publish,
    "consume": _consume,
    "publish one by one": _publish_one_by_one,
    "publish to delivery": _deliver,
}
"""The measurements by name, in their order."""


# -- latencies


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that a `share` (0 to 1) of the values do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class ConfirmTimes:
    """The latency of confirms, one measurement for each slice. Pure: the clock is an argument.

    It is the time from accepting the slice until its last message is confirmed. Publishing ids
    count from `first`.
    """

    __slots__ = ("_open", "next", "seconds")

    def __init__(self, first: int) -> None:
        self.next: int = first
        self.seconds: list[float] = []
        self._open: deque[tuple[int, float]] = deque()

    def sent(self, messages: int, now: float) -> None:
        """A slice is about to be accepted."""
        self.next += messages
        self._open.append((self.next - 1, now))

    def confirmed(self, ids: Sequence[int], now: float) -> None:
        """The broker confirmed these messages, and all that were sent before."""
        last = max(ids)
        while self._open and self._open[0][0] <= last:
            self.seconds.append(now - self._open.popleft()[1])
