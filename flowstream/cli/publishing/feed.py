"""A file into a stream at a steady rate: for `publish`, and for `run --feed` beside a pipeline.

The line a message comes from is its publishing id. So what the broker has confirmed is said by
line, and with a name (the publisher's reference) the broker drops what it has already.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from anyio import to_thread

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.publishing.rate import Pace
from flowstream.cli.publishing.record_formats import InputError, Slice
from flowstream.cli.publishing.records import LONGEST, Format, Source
from flowstream.cli.readers.position import partitions_of
from flowstream.client import Publisher, SuperStreamPublisher, encode_data_all
from flowstream.errors import MessageTooLarge, PublishFailed

if TYPE_CHECKING:
    from flowstream.client import Environment

AnyPublisher: TypeAlias = Publisher | SuperStreamPublisher

PATIENCE = 30.0
"""Seconds without any confirm, while some are due, after which the broker is given up."""

AT_ONCE = 1_000
"""Messages handed to the publisher at once: it takes all of them or none."""


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """What to publish, where to and how; `rate` is messages per second, `first` the line to begin
    with, `name` the reference under which the broker knows lines again. In a super stream the
    value of the field `key` chooses the partition, or with `by_line` the number of the line.
    """

    stream: str
    file: str
    format: Format | None = None
    raw: bool = False
    rate: float | None = None
    loop: bool = False
    first: int = 1
    name: str | None = None
    key: str | None = None
    by_line: bool = False


@dataclass(slots=True)
class Tally:
    """What was sent so far; at the end, what was confirmed.

    `deduplicated` messages were in the stream before, under the plan's name. Every line before
    `next_line` is confirmed; `beyond` is the last line that is, where that one is behind it.
    """

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    deduplicated: int = 0
    next_line: int = 1
    beyond: int = 0


class _GivenUp(Exception):
    """A second signal: confirms are not waited for."""


class Feed:
    """Slices of a file at a rate, until its end (or, with `loop`, on and on) or `stop`.

    Use it as a context manager.
    """

    def __init__(self, plan: FeedPlan) -> None:
        self.plan = plan
        self.tally = Tally(next_line=plan.first)
        self._source = self._open()
        self._slices: Iterator[Slice] = iter(())
        self._held = Slice()
        self._taken = self._begin = self._end = 0
        self._pace = Pace(plan.rate, time.monotonic()) if plan.rate else None
        self._stopped = anyio.Event()
        self._patience = anyio.CancelScope()
        self._given_up = False
        self._highest = 0
        self._failed: list[int] = []
        self._failure: PublishFailed | None = None
        self.size = None if plan.loop else self._source.size

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.__exit__()

    @property
    def position(self) -> int:
        """How far it is in the `size` bytes of the file, as far as that is handed over: the source
        reads ahead."""
        left = len(self._held) / self._taken if self._taken else 0.0
        return round(self._end - (self._end - self._begin) * left)

    def stop(self) -> None:
        """Send nothing more; `send` returns once what was sent is confirmed, and at the next call
        without that."""
        if self.tally.interrupted:
            self._given_up = True
            self._patience.cancel()
        self.tally.interrupted = True
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._source.stop()

    async def send(self, environment: Environment, shown: Callable[[], None]) -> None:
        """Publish everything and wait for the confirms; calls `shown` after every slice.

        However it ends, `tally` then tells what was confirmed.
        """
        start = time.monotonic()
        frame = (await environment.server_info()).frame_max
        self._slices = self._read(frame or LONGEST)
        publisher = await self._publisher(environment)
        try:
            async with publisher:
                await self._send_all(publisher, shown)
        except _GivenUp:
            pass
        except InputError as error:
            self.tally.next_line = error.line
            raise
        finally:
            self._settle(publisher.deduplicated)
            self.tally.seconds = time.monotonic() - start
        if self._failure is not None:
            raise self._failure

    async def _publisher(self, environment: Environment) -> AnyPublisher:
        """Of the stream or super stream, which must fit the plan."""
        plan = self.plan
        options: dict[str, Any] = {
            "reference": plan.name,
            "confirm_timeout": None,  # an id that fails while later ones go on would leave a hole
            "on_confirm": self._confirmed,
            "on_error": self._refused,
        }
        if await partitions_of(environment, plan.stream) is None:
            if plan.key is not None:
                raise CommandError(
                    f"{plan.stream} is a stream, and --key chooses the partition of a super stream",
                    ExitCode.USAGE,
                )
            return environment.publisher(plan.stream, **options)
        if plan.key is None and not plan.by_line:
            raise CommandError(
                f"{plan.stream} is a super stream: name the field that chooses the partition with "
                "--key FIELD, or publish to one of its partitions",
                ExitCode.USAGE,
            )
        routing = await environment.routing_of(plan.stream) if plan.key is not None else "hash"
        return environment.super_stream_publisher(plan.stream, routing=routing, **options)

    async def _send_all(self, publisher: AnyPublisher, shown: Callable[[], None]) -> None:
        mistake: CommandError | None = None
        try:
            while (part := await self._next()) is not None:
                await self._hand_over(publisher, part)
                shown()
        except CommandError as error:
            mistake = error
        await self._patiently(publisher.flush)
        if mistake is not None:
            raise mistake

    async def _hand_over(self, publisher: AnyPublisher, part: Slice) -> None:
        bodies = part.bodies if self.plan.raw else encode_data_all(part.bodies)
        ids = None if self.plan.loop else part.lines
        try:
            if isinstance(publisher, SuperStreamPublisher):
                keys = await self._keys(publisher, part)
                await self._patiently(
                    lambda: publisher.send_many(bodies, keys=keys, publishing_ids=ids)
                )
            else:
                await self._patiently(lambda: publisher.send_many(bodies, publishing_ids=ids))
        except MessageTooLarge as error:
            await self._one_by_one(publisher, part, error)
            return
        self.tally.messages += len(part)
        self.tally.bytes += sum(map(len, part.bodies))
        self.tally.next_line = part.lines[-1] + 1

    async def _keys(self, publisher: SuperStreamPublisher, part: Slice) -> list[str]:
        """The keys of a slice; raises InputError for the first that leads to no partition, after
        everything before it was sent."""
        if self.plan.by_line:
            return list(map(str, part.lines))
        for index, key in enumerate(part.keys):
            try:
                await publisher.partitions_of(key)
            except PublishFailed as error:
                if index:
                    await self._hand_over(publisher, part.cut(0, index))
                raise InputError(
                    self._source.name, part.lines[index], f"cannot be routed: {error}"
                ) from error
        return part.keys

    async def _one_by_one(
        self, publisher: AnyPublisher, part: Slice, error: MessageTooLarge
    ) -> None:
        """Everything before the message that is too large, which is named by its line."""
        if len(part) == 1:
            problem = f"is too large: {error}"
            raise InputError(self._source.name, part.lines[0], problem) from error
        for index in range(len(part)):
            await self._hand_over(publisher, part.cut(index, index + 1))

    async def _patiently(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Raises PublishFailed where nothing is confirmed meanwhile for too long."""
        if not self._given_up:
            with anyio.CancelScope(deadline=anyio.current_time() + PATIENCE) as self._patience:
                await wait()
                return
        if self._given_up:
            raise _GivenUp
        raise PublishFailed(
            f"the broker has confirmed nothing of {self.plan.stream} for {PATIENCE:g} s",
            stream=self.plan.stream,
        )

    def _confirmed(self, ids: Sequence[int]) -> None:
        self._highest = max(self._highest, *ids)
        self._patience.deadline = anyio.current_time() + PATIENCE

    def _refused(self, ids: Sequence[int], error: PublishFailed) -> None:
        """The first failure ends the feed: nothing goes in behind a hole."""
        self._failed += ids
        if self._failure is None and not self.tally.interrupted:
            self._failure = error
        self._stop()

    def _settle(self, deduplicated: int) -> None:
        tally = self.tally
        tally.deduplicated = deduplicated
        tally.messages -= len(self._failed) + deduplicated
        if self._failed and not self.plan.loop:
            tally.next_line = min(self._failed)
            tally.beyond = self._highest if self._highest > tally.next_line else 0

    async def _next(self) -> Slice | None:
        """The next messages as soon as they are due; None at the end."""
        while not self._held:
            taken = await to_thread.run_sync(lambda: next(self._slices, None))
            if taken is None or self._stopped.is_set():
                return None
            self._held, self._taken = taken, len(taken)
            self._begin, self._end = self._end, self._source.position
        count = await self._due(min(len(self._held), AT_ONCE))
        part, self._held = self._held.cut(0, count), self._held.cut(count)
        return part if part else None

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

    def _open(self) -> Source:
        plan = self.plan
        return Source(plan.file, plan.format, first=plan.first, key=plan.key)

    def _read(self, longest: int) -> Iterator[Slice]:
        yield from self._source.slices(longest)
        while self.plan.loop and not self._stopped.is_set():
            if not self.tally.messages and not self._held:
                raise CommandError(f"{self.plan.file} has no messages", ExitCode.INPUT)
            with self._open() as again:
                yield from again.slices(longest)
