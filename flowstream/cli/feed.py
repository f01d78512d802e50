"""A file into a stream at a steady rate: for `publish`, and for `run --feed` beside a pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.pace import Pace
from flowstream.cli.records import Format, Source
from flowstream.client import encode_data_all

if TYPE_CHECKING:
    from flowstream.client import Publisher


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """What to publish, where to and how; `rate` is messages per second."""

    stream: str
    file: str
    format: Format | None = None
    raw: bool = False
    rate: float | None = None
    loop: bool = False


@dataclass(slots=True)
class Tally:
    """What was sent so far."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False


class Feed:
    """Slices of a file at a rate, until its end (or, with `loop`, on and on) or `stop`.

    Use it as a context manager.
    """

    def __init__(self, plan: FeedPlan) -> None:
        self.plan = plan
        self.tally = Tally()
        self._source = Source(plan.file, plan.format)
        self._slices = self._read()
        self._held: list[bytes] = []
        self._pace = Pace(plan.rate, time.monotonic()) if plan.rate else None
        self._stopped = anyio.Event()
        self.size = None if plan.loop else self._source.size

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.__exit__()

    @property
    def position(self) -> int:
        """Bytes read of `size`."""
        return self._source.position

    def stop(self) -> None:
        """Send nothing more; `send` returns once what was sent is confirmed."""
        self.tally.interrupted = True
        self._stopped.set()
        self._source.stop()

    async def send(self, publisher: Publisher, shown: Callable[[], None]) -> None:
        """Publish everything and wait for the confirms; calls `shown` after every slice."""
        start = time.monotonic()
        while (bodies := await self._next()) is not None:
            await publisher.send_many(bodies if self.plan.raw else encode_data_all(bodies))
            self.tally.messages += len(bodies)
            self.tally.bytes += sum(map(len, bodies))
            shown()
        await publisher.flush()
        self.tally.seconds = time.monotonic() - start

    async def _next(self) -> list[bytes] | None:
        """The next slice as soon as it is due; None at the end."""
        while not self._held:
            bodies = await to_thread.run_sync(lambda: next(self._slices, None))
            if bodies is None or self._stopped.is_set():
                return None
            self._held = bodies
        count = await self._due(len(self._held))
        bodies, self._held = self._held[:count], self._held[count:]
        return bodies or None

    async def _due(self, wanted: int) -> int:
        """How many of `wanted` may go now, after waiting for at least one; 0 once stopped."""
        if self._pace is None:
            return wanted
        while not (due := self._pace.due(time.monotonic())):
            with anyio.move_on_after(self._pace.wait()):
                await self._stopped.wait()
                return 0
        count = min(due, wanted)
        self._pace.sent(count)
        return count

    def _read(self) -> Iterator[list[bytes]]:
        yield from self._source.slices()
        while self.plan.loop and not self._stopped.is_set():
            if not self.tally.messages and not self._held:
                raise CommandError(f"{self.plan.file} has no messages", ExitCode.INPUT)
            with Source(self.plan.file, self.plan.format) as again:
                yield from again.slices()
