"""A stream in memory with real offset semantics, and what tests want to know of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from flowstream.errors import CommitNotVerified
from flowstream.pipeline import Intake, Message, Pipeline, Producer
from flowstream.telemetry import Event, Telemetry


class MemoryStream(Producer):
    """Delivers `bodies` from behind the stored offset on, and ends; keeps stored offsets.

    `slices` are the sizes of the deliveries, in turn. With `endless` it waits for more at the end.
    """

    def __init__(
        self,
        bodies: list[Any],
        *,
        stream: str = "orders",
        slices: list[int] | None = None,
        endless: bool = False,
    ) -> None:
        self.bodies = bodies
        self.stream = stream
        self.slices = slices or [100]
        self.endless = endless
        self.stored: dict[str, int] = {}
        self.commits: list[tuple[str, int]] = []
        self.verified: list[tuple[str, int]] = []
        self.opened = self.closed = 0

    async def open(self, context: Any) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def run(self, intake: Intake) -> None:
        stored = self.stored.get(self.stream)
        offset = 0 if stored is None else stored + 1
        partition = intake.open(self.stream, committed=stored)
        turn = 0
        while offset < len(self.bodies):
            size = self.slices[turn % len(self.slices)]
            turn += 1
            bodies = self.bodies[offset : offset + size]
            await partition.send(bodies, offset=offset, tail=len(self.bodies) - 1)
            offset += len(bodies)
        if self.endless:
            await anyio.sleep_forever()

    async def commit(self, stream: str, offset: int) -> None:
        self.commits.append((stream, offset))
        self.stored[stream] = offset

    async def verify(self, stream: str, offset: int) -> None:
        if self.stored.get(stream) != offset:
            raise CommitNotVerified(f"{stream}: {self.stored.get(stream)} is stored, not {offset}")
        self.verified.append((stream, offset))

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        return (positions.get(self.stream) or 0) >= len(self.bodies) - 1


def numbers(count: int) -> list[bytes]:
    """`count` bodies: {"n": 0}, {"n": 1}, ..."""
    return [json.dumps({"n": n}).encode() for n in range(count)]


def pipeline_of(producer: Producer | int, **options: Any) -> Pipeline:
    """A pipeline over a producer, or over that many numbers."""
    if isinstance(producer, int):
        producer = MemoryStream(numbers(producer))
    return Pipeline("test", producer, **options)


class Recorder:
    """An observer that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def telemetry(self) -> Telemetry:
        return Telemetry(self)


def n_of(message: Message[Any]) -> int:
    number: int = message.data["n"]
    return number


def when(condition: Callable[[], bool]) -> Any:
    """Wait until the condition holds, looking every virtual 10 ms."""

    async def wait() -> None:
        with anyio.fail_after(1000):
            while not condition():
                await anyio.sleep(0.01)

    return wait()
