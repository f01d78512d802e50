"""`flowstream bench`: what this client and that broker do together, in one table."""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowstream.cli.commands.latencies import ConfirmTimes, percentile
from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.output.console import note, print_json, print_rows
from flowstream.cli.output.progress import doing
from flowstream.cli.parser.options import DEFAULT_URL, Json, Url, examples, on_signal, run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flowstream.client import Environment


SLICE = 100
"""Messages handed to the publisher at once."""

SINGLE = 1_000
"""Messages at most that are published one at a time."""

PACE = 500.0
"""Messages a second whose way to a consumer is timed."""

CLOSING = 10.0
"""Seconds that deleting the stream may take."""

STAMP = struct.Struct("!Q")
"""The start of a body whose way is timed: when it was published, in ns of this machine's clock."""

COLUMNS = ["measured", "messages", "seconds", "messages_per_s", "MB_per_s", "p50_ms", "p99_ms"]


@dataclass(frozen=True, slots=True)
class Plan:
    """`messages` at most of `size` bytes, and `seconds` at most for each measurement."""

    url: str = field(repr=False)
    messages: int
    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table; `latencies` in seconds."""

    name: str
    messages: int
    seconds: float
    size: int
    latencies: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Rates, and the median and the 99th percentile in milliseconds."""
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


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream bench",
            "flowstream bench --url rabbitmq-stream://guest:guest@rabbit:5552/ --seconds 10",
            "flowstream bench --size 1000 --messages 100000 --json",
        )
    )(bench)


def bench(
    *,
    messages: Annotated[
        int,
        typer.Option(
            "-n", "--messages", min=1, metavar="NUMBER", help="Messages published at most."
        ),
    ] = 1_000_000,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="NUMBER", help="How long each of the four measurements may take."
        ),
    ] = 5.0,
    size: Annotated[
        int,
        typer.Option(min=STAMP.size, max=1_000_000, metavar="NUMBER", help="Bytes of a message."),
    ] = 100,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Measure publishing and consuming on a broker, in a stream that is deleted afterwards.

    Four measurements, one after the other: publishing as fast as confirms allow, consuming what
    was published, publishing one message after the other's confirm, and the way of a message from
    its publisher to a consumer at 500 messages a second. Latencies are those of confirms in the
    first and third, and until delivery in the fourth. The stream takes up to messages x size bytes
    of the broker's disk. Ctrl-C ends it, deletes the stream and shows what was measured.
    """
    plan = Plan(url, messages, seconds, size)
    found: list[Measured] = []
    finished = run_async(_bench, plan, found)
    rows = [measured.row() for measured in found]
    if json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, empty="nothing was measured")
    if not finished:
        note("interrupted: the stream was deleted")
        raise typer.Exit(ExitCode.FORCED)


async def _bench(plan: Plan, found: list[Measured]) -> bool:
    """Measures into `found`; False where a signal ended it."""
    import anyio

    from flowstream.cli.connection.connect import connect

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
    """A stream of a random name, deleted whatever happens."""
    import anyio

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
                    note(f"left behind; delete it with: flowstream streams delete {name}")


async def _publish(environment: Environment, stream: str, plan: Plan, name: str) -> Measured:
    """As fast as the window of unconfirmed messages lets."""
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
    """From the first message to the present end."""
    import anyio

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
    """Each waits for the confirm of the one before."""
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
    """From the publisher's hands to the consumer's, at a steady pace."""
    import anyio

    latencies: list[float] = []
    wanted = min(plan.messages, max(1, int(plan.seconds * PACE)))
    start = time.perf_counter()
    async with (
        environment.consumer(stream, offset="next") as consumer,
        environment.publisher(stream) as publisher,
        anyio.create_task_group() as group,
    ):

        async def send() -> None:
            for bodies in _paced(wanted, plan.size):
                await publisher.send_many(bodies)
                await anyio.sleep(len(bodies) / PACE)
            await publisher.flush()
            await anyio.sleep(plan.seconds)  # for the last ones to arrive
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


def _paced(messages: int, size: int) -> Iterator[list[bytes]]:
    """Bodies that say when they were made, five at a time."""
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
"""Each gets its name, in the order in which they are made."""
