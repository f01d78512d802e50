"""A publisher and a consumer at full speed that count: nothing lost, reordered or repeated."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from flowstream.client import Environment, State

SLICE = 200
PATIENCE = 60.0


class Silence:
    """The longest time between two signs of life, in seconds."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._last = anyio.current_time()

    def broken(self) -> None:
        now = anyio.current_time()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def longest(self) -> float:
        """Since the last time this was asked."""
        longest, self._longest = self._longest, 0.0
        return longest


class Traffic:
    """Numbers 0, 1, 2, ... published under a name, and consumed; `consumed` is the next one."""

    def __init__(self, env: Environment, stream: str, *, slice_: int = SLICE) -> None:
        self.env = env
        self.stream = stream
        self.sent = 0
        self.consumed = 0
        self.confirmed = 0
        self.publisher = env.publisher(
            stream,
            reference="traffic",
            max_unconfirmed=5_000,
            confirm_timeout=None,
            on_confirm=self._confirmed,
        )
        self.consumer = env.consumer(stream)
        self._slice = slice_
        self._stopping = False
        self._confirms = Silence()
        self._deliveries = Silence()

    def _confirmed(self, ids: Any) -> None:
        self.confirmed += len(ids)
        self._confirms.broken()

    async def _publish(self) -> None:
        async with self.publisher as publisher:
            while not self._stopping:
                first, self.sent = self.sent, self.sent + self._slice
                await publisher.send_many([b"%d" % n for n in range(first, self.sent)])
            await publisher.flush()

    async def _consume(self) -> None:
        async with self.consumer as consumer:
            while not (self._stopping and self.consumed == self.sent):
                delivery = await anext(consumer)
                self._deliveries.broken()
                first, self.consumed = self.consumed, self.consumed + len(delivery)
                expected = [b"%d" % n for n in range(first, self.consumed)]
                assert delivery.bodies == expected, (
                    f"{delivery.bodies[0]!r} at {delivery.offset} instead of {expected[0]!r}"
                )

    async def flows(self, messages: int = 2_000) -> None:
        """Returns when so many messages were confirmed, and so many consumed, from now on."""
        confirmed, consumed = self.confirmed + messages, self.consumed + messages
        with anyio.fail_after(PATIENCE):
            while self.confirmed < confirmed or self.consumed < consumed:
                await anyio.sleep(0.005)

    async def recovers(self, from_what: str, messages: int = 2_000) -> float:
        """Waits until all flows; tells and returns how long (seconds) nothing came meanwhile."""
        await self.flows(messages)
        confirms, deliveries = self._confirms.longest(), self._deliveries.longest()
        print(f"\n{from_what}: no confirm for {confirms:.2f} s, no delivery for {deliveries:.2f} s")
        return max(confirms, deliveries)

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def traffic(env: Environment, stream: str, **options: Any) -> AsyncIterator[Traffic]:
    """Runs traffic; in the end every confirmed message has been consumed, once and in order."""
    running = Traffic(env, stream, **options)
    async with anyio.create_task_group() as group:
        group.start_soon(running._publish)
        group.start_soon(running._consume)
        await running.recovers("the beginning")
        yield running
        running.stop()
        with anyio.move_on_after(PATIENCE) as late:
            while running.consumed < running.sent:
                await anyio.sleep(0.01)
        assert not late.cancelled_caught, f"{running.consumed} of {running.sent} were consumed"
    assert running.publisher.unconfirmed == 0


def memory() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@asynccontextmanager
async def leaves_nothing(running: Traffic) -> AsyncIterator[None]:
    """Connections, tasks and memory are what they were, a moment after everything flows again."""
    before, used = running.env.statistics(), memory()
    yield
    await running.env.wait_for(State.OPEN)
    await running.publisher.wait_for(State.OPEN)
    await running.consumer.wait_for(State.OPEN)
    with anyio.fail_after(PATIENCE):
        while running.env.statistics() != before:
            await anyio.sleep(0.05)
    assert memory() - used < 50_000_000
