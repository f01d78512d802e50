"""A file published to a stream, at a steady rate if wanted: for `publish` and `run --feed`.

The number of a message's line is its publishing id. So progress is reported by line, and with a
name (the publisher's reference) the broker drops the lines that it already has.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import anyio
from anyio import to_thread

from flowstream.cli.connection.streams import partitions_of
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.publishing.record_formats import InputError, Slice
from flowstream.cli.publishing.records import LONGEST, Format, Source
from flowstream.client import Environment, Publisher, SuperStreamPublisher, encode_data_all
from flowstream.errors import MessageTooLarge, PublishFailed

AnyPublisher: TypeAlias = Publisher | SuperStreamPublisher

PATIENCE = 30.0
"""Seconds without a confirm, while some are due, after which publishing fails."""

AT_ONCE = 1_000
"""Messages passed to the publisher at once. It accepts all of them or none."""


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """What to publish, and how.

    `rate` is in messages a second. `first` is the line to start with. `name` is the reference under
    which the broker recognises lines. In a super stream, the value of the field `key` selects the
    partition, or with `by_line` the number of the line.
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
    """What was sent so far, and at the end what was confirmed.

    `deduplicated` messages were in the stream before, under the plan's name. Every line before
    `next_line` is confirmed. `beyond` is the last confirmed line if it is after that, else 0.
    """

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    deduplicated: int = 0
    next_line: int = 1
    beyond: int = 0


class _Abandoned(Exception):
    """A second signal came, so confirms are not awaited."""


class Feed:
    """Publishes a file until its end, or repeatedly with `loop`, or until `stop`.

    Use it as a context manager.
    """

    def __init__(self, plan: FeedPlan) -> None:
        self.plan = plan
        self.tally: Final = Tally(next_line=plan.first)
        self._source = self._open()
        self._slices: Iterator[Slice] = iter(())
        self._held = Slice()
        self._taken = self._begin = self._end = 0
        self._rate = Rate(plan.rate, time.monotonic()) if plan.rate else None
        self._stopped = anyio.Event()
        self._patience = anyio.CancelScope()
        self._abandoned = False
        self._highest = 0
        self._failed: list[int] = []
        self._failure: PublishFailed | None = None
        self.size: int | None = None if plan.loop else self._source.size

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.__exit__()

    @property
    def position(self) -> int:
        """The position of the sent messages in the `size` bytes of the file.

        The source has read further.
        """
        left = len(self._held) / self._taken if self._taken else 0.0
        return round(self._end - (self._end - self._begin) * left)

    def stop(self) -> None:
        """Send nothing more, and let `send` return once everything sent is confirmed.

        A second call lets it return without the confirms.
        """
        if self.tally.interrupted:
            self._abandoned = True
            self._patience.cancel()
        self.tally.interrupted = True
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._source.stop()

    async def send(self, environment: Environment, sent: Callable[[], None]) -> None:
        """Publish everything and wait for the confirms; calls `sent` after every slice.

        However it ends, `tally` has what was confirmed.
        """
        start = time.monotonic()
        frame = (await environment.server_info()).frame_max
        self._slices = self._read(frame or LONGEST)
        publisher = await self._publisher(environment)
        try:
            async with publisher:
                await self._send_all(publisher, sent)
        except _Abandoned:
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
        """A publisher for the stream. Raises CommandError if the plan does not fit it."""
        plan = self.plan
        options: dict[str, Any] = {
            "reference": plan.name,
            "confirm_timeout": None,  # an id that expires before later ones would leave a gap
            "on_confirm": self._confirmed,
            "on_error": self._refused,
        }
        if await partitions_of(environment, plan.stream) is None:
            if plan.key is not None:
                raise CommandError(
                    f"{plan.stream} is a stream, and --key is only for super streams; omit --key",
                    ExitCode.USAGE,
                )
            return environment.publisher(plan.stream, **options)
        if plan.key is None and not plan.by_line:
            raise CommandError(
                f"{plan.stream} is a super stream; name the field that selects the partition with "
                "--key FIELD, or publish to one of its partitions",
                ExitCode.USAGE,
            )
        routing = await environment.routing_of(plan.stream) if plan.key is not None else "hash"
        return environment.super_stream_publisher(plan.stream, routing=routing, **options)

    async def _send_all(self, publisher: AnyPublisher, sent: Callable[[], None]) -> None:
        invalid: CommandError | None = None
        try:
            while (part := await self._next()) is not None:
                await self._pass_on(publisher, part)
                sent()
        except CommandError as error:
            invalid = error
        await self._with_patience(publisher.flush)
        if invalid is not None:
            raise invalid

    async def _pass_on(self, publisher: AnyPublisher, part: Slice) -> None:
        bodies = part.bodies if self.plan.raw else encode_data_all(part.bodies)
        ids = None if self.plan.loop else part.lines
        try:
            if isinstance(publisher, SuperStreamPublisher):
                keys = await self._keys(publisher, part)
                await self._with_patience(
                    lambda: publisher.send_many(bodies, keys=keys, publishing_ids=ids)
                )
            else:
                await self._with_patience(lambda: publisher.send_many(bodies, publishing_ids=ids))
        except MessageTooLarge as error:
            await self._one_by_one(publisher, part, error)
            return
        self.tally.messages += len(part)
        self.tally.bytes += sum(map(len, part.bodies))
        self.tally.next_line = part.lines[-1] + 1

    async def _keys(self, publisher: SuperStreamPublisher, part: Slice) -> list[str]:
        """The keys of a slice.

        Raises InputError for the first key without a partition, after sending everything before.
        """
        if self.plan.by_line:
            return list(map(str, part.lines))
        for index, key in enumerate(part.keys):
            try:
                await publisher.partitions_of(key)
            except PublishFailed as error:
                if index:
                    await self._pass_on(publisher, part.cut(0, index))
                raise InputError(
                    self._source.name, part.lines[index], f"cannot be routed: {error}"
                ) from error
        return part.keys

    async def _one_by_one(
        self, publisher: AnyPublisher, part: Slice, error: MessageTooLarge
    ) -> None:
        """Send everything before the message that is too large. Raises InputError with its line."""
        if len(part) == 1:
            problem = f"is too large: {error}"
            raise InputError(self._source.name, part.lines[0], problem) from error
        for index in range(len(part)):
            await self._pass_on(publisher, part.cut(index, index + 1))

    async def _with_patience(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Raises PublishFailed if nothing is confirmed for PATIENCE seconds."""
        if not self._abandoned:
            with anyio.CancelScope(deadline=anyio.current_time() + PATIENCE) as self._patience:
                await wait()
                return
        if self._abandoned:
            raise _Abandoned
        raise PublishFailed(
            f"the broker confirmed no message of {self.plan.stream} for {PATIENCE:g} s",
            stream=self.plan.stream,
        )

    def _confirmed(self, ids: Sequence[int]) -> None:
        self._highest = max(self._highest, *ids)
        self._patience.deadline = anyio.current_time() + PATIENCE

    def _refused(self, ids: Sequence[int], error: PublishFailed) -> None:
        """The first failure ends the feed: nothing is sent after a missing message."""
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
        """The next messages once they are due; None at the end."""
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
        """How many of `wanted` may be sent, after waiting for at least one; 0 once stopped."""
        if self._rate is None:
            return wanted
        while not (due := self._rate.due(time.monotonic())):
            with anyio.move_on_after(self._rate.wait()):
                await self._stopped.wait()
                return 0
        count = min(due, wanted)
        self._rate.sent(count)
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


# -- rate


class Rate:
    """How many messages are due at `rate` per second. Pure: the clock is an argument.

    A sender that was delayed catches up by at most `burst` seconds, so that no flood follows a
    long pause.
    """

    __slots__ = ("_burst", "_credit", "_last", "_rate")

    def __init__(self, rate: float, now: float, burst: float = 1.0) -> None:
        self._rate = rate
        self._burst = burst
        self._last = now
        self._credit = 0.0

    def due(self, now: float) -> int:
        """The number of messages that may be sent now."""
        earned = (now - self._last) * self._rate
        self._credit = min(self._credit + earned, self._burst * self._rate + 1)
        self._last = now
        return int(self._credit)

    def sent(self, count: int) -> None:
        """Record that `count` messages were sent."""
        self._credit -= count

    def wait(self) -> float:
        """Seconds until the next message is due, at least 0.05."""
        return max(0.05, (1.0 - self._credit) / self._rate)
