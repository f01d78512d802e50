"""A publisher and a consumer at full speed that count: nothing lost, reordered or repeated."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from flowstream.client import Environment

SLICE = 200
PATIENCE = 60.0


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

    def _confirmed(self, ids: Any) -> None:
        self.confirmed += len(ids)

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
                first, self.consumed = self.consumed, self.consumed + len(delivery)
                expected = [b"%d" % n for n in range(first, self.consumed)]
                assert delivery.bodies == expected, (
                    f"{delivery.bodies[0]!r} at {delivery.offset} instead of {expected[0]!r}"
                )

    async def flows(self, messages: int = 2_000) -> float:
        """Seconds until so many messages were confirmed, and so many consumed, from now on."""
        start = anyio.current_time()
        confirmed, consumed = self.confirmed + messages, self.consumed + messages
        with anyio.fail_after(PATIENCE):
            while self.confirmed < confirmed or self.consumed < consumed:
                await anyio.sleep(0.005)
        return anyio.current_time() - start

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def traffic(env: Environment, stream: str, **options: Any) -> AsyncIterator[Traffic]:
    """Runs traffic; in the end every confirmed message has been consumed, once and in order."""
    running = Traffic(env, stream, **options)
    async with anyio.create_task_group() as group:
        group.start_soon(running._publish)
        group.start_soon(running._consume)
        await running.flows()
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
