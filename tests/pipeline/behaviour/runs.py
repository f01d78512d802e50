"""Runs of one pipeline over streams that outlive them, and a book of what each message is owed.

`World` is a broker in memory with what goes wrong in the life of a pipeline: processes that are
killed (`Process`), single active consumers (`Member`), retention, and messages whose handling is
scripted. `Book` knows for one stream where the pipeline was last asked to go on, and what became of
everything from there on: from handlers, the dead-letter stream and events, never from the pipeline.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from flowstream import (
    Backoff,
    Batch,
    DeadLetter,
    Drop,
    Halt,
    IterableProducer,
    Message,
    Pipeline,
    Retry,
    StreamProducer,
    SuperStreamProducer,
)
from flowstream.client import AmqpMessage, Offset
from flowstream.pipeline import Failure
from flowstream.telemetry import Event, Telemetry, Truncated
from flowstream.testing import MemoryEnvironment

NAME = "pipeline"
DEAD = "dead"
MINUTE = 60_000
"""Milliseconds between the chunks' times."""


@dataclass(frozen=True, slots=True)
class Script:
    """How a message is handled: its first `fails` tries, over all runs, fail in one stage."""

    action: str = "ok"
    fails: int = 0
    how: str = "raise"
    in_batch: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The declaration of a run."""

    offset: Offset = "first"
    concurrency: int = 1
    batch: int = 0
    policy: str = "halt"
    attempts: int = 1
    backoff: float = 1.0
    window: int = 20
    commit_every: int = 1
    on_truncated: Any = "error"
    drain_timeout: float = 5.0


@dataclass
class Book:
    """What is owed to the messages of one stream.

    `asked` is where the pipeline was last asked to go on: by the first run's `offset=`, later by a
    reset. From there on every message must be `done` (handled, or disposed of by the policy), or
    retention took it and that was told. `candidate` is where a run begins that nothing has come of
    yet: another one may begin elsewhere.
    """

    asked: int | None = None
    candidate: int | None = None
    done: set[int] = field(default_factory=set)
    accounted: set[int] = field(default_factory=set)
    discarded: set[int] = field(default_factory=set)
    """Named to be discarded: their handling is not owed any more, and nobody else's is touched."""
    told: int = 0
    """Lost messages that were told of and are not `accounted` yet."""

    def begins(self, place: int) -> None:
        if self.asked is None:
            self.candidate = place

    def firm(self) -> None:
        """Something came of the run: this is where it began."""
        if self.asked is None:
            self.asked = self.candidate

    def reset(self, place: int) -> None:
        self.asked, self.candidate = place, None
        self.done = {n for n in self.done if n < place}
        self.discarded.clear()
        self.accounted = {n for n in self.accounted if n < place}
        self.told = 0

    def missing(self, end: int) -> list[int]:
        """What is owed and not done before `end`."""
        if self.asked is None:
            return []
        seen = self.done | self.accounted | self.discarded
        return [n for n in range(self.asked, end) if n not in seen]

    def account(self, end: int, first: int) -> list[int]:
        """Write off what retention took, as far as that was told; returns what is still missing."""
        missing = self.missing(end)
        gone = [n for n in missing if n < first][: self.told]
        self.accounted.update(gone)
        self.told -= len(gone)
        return missing[len(gone) :]


class World:
    """Streams, what is owed to their messages, and the processes that run the pipeline."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.broker = MemoryEnvironment(chunk_size=4)
        self.streams = ["orders"]
        if kind != "stream":
            self.streams = self.broker.super_stream("orders", 2)
        for stream in self.streams:
            self.broker.stream(stream)
        self.books = {stream: Book() for stream in self.streams}
        self.scripts: dict[str, list[Script]] = {stream: [] for stream in self.streams}
        self.tries: Counter[tuple[str, int]] = Counter()
        self.mended = False
        self.wrong: list[str] = []
        self.members: list[Member] = []
        self.members_changed = anyio.Event()
        self._owners: dict[str, Member] = {}
        self._letters = 0
        self._epoch = int(time.time()) * 1000 - 10_000 * MINUTE
        self._minutes = 0

    def complain(self, what: str) -> None:
        self.wrong.append(what)

    # -- what happens to streams

    def publish(self, stream: str, scripts: Sequence[Script]) -> None:
        first = len(self.scripts[stream])
        self.scripts[stream].extend(scripts)
        bodies = [{"n": first + index} for index in range(len(scripts))]
        self._minutes += 1
        self.broker.append(stream, bodies, timestamp=self._epoch + self._minutes * MINUTE)

    def ago(self, minutes: int) -> timedelta:
        """An age between two chunks: that of the last but `minutes` ones."""
        return datetime.now(UTC) - self.at(minutes)

    def at(self, minutes: int) -> datetime:
        moment = self._epoch + (self._minutes - minutes) * MINUTE + MINUTE // 2
        return datetime.fromtimestamp(moment / 1000, UTC)

    def first(self, stream: str) -> int:
        return self.broker.stream(stream).first_offset or 0

    def end(self, stream: str) -> int:
        return self.broker.stream(stream).next_offset

    def truncate(self, stream: str, before: int) -> None:
        self.broker.stream(stream).truncate(before)

    def reset(self, stream: str, place: int) -> None:
        """What `flowstream offsets reset` and `set` do, which refuse while the pipeline runs."""
        self.broker.offsets[NAME, stream] = place - 1
        self.books[stream].reset(place)

    # -- what is told

    def handling(self, message: Message[Any]) -> None:
        if message.data != {"n": message.offset}:
            self.complain(f"{message.stream}@{message.offset} came as {message.data}")
        self.books[message.stream].firm()

    def finished(self, stream: str, offset: int) -> None:
        self.books[stream].done.add(offset)

    def told(self, event: Truncated, shape: Shape) -> None:
        if shape.on_truncated == "skip":
            self.books[event.stream].firm()
            self.books[event.stream].told += event.messages

    def read_letters(self) -> None:
        bodies = self.broker.stream(DEAD).bodies
        for body in bodies[self._letters :]:
            properties = AmqpMessage(body).application_properties or {}
            self.finished(str(properties["x-stream"]), int(properties["x-offset"]))
        self._letters = len(bodies)

    def stored(self, stream: str) -> int | None:
        return self.broker.offsets.get((NAME, stream))

    def stores(self, stream: str, offset: int) -> None:
        """An offset is about to be stored: everything before it that is owed must be done."""
        book, before = self.books[stream], self.stored(stream)
        if before is not None and offset < before:
            self.complain(f"{stream}: {before} was stored, and then {offset}")
        self.read_letters()
        missing = book.account(offset + 1, self.first(stream))
        if missing:
            self.complain(
                f"{stream}: {offset} was stored, {missing[:5]} are not handled (asked: "
                f"{book.asked}, begins at {self.first(stream)}, ends at {self.end(stream)})"
            )

    def left(self) -> dict[str, list[int]]:
        """What is owed now, by stream, where there is any."""
        self.read_letters()
        left = {
            stream: book.account(self.end(stream), self.first(stream))
            for stream, book in self.books.items()
        }
        return {stream: missing for stream, missing in left.items() if missing}

    # -- single active consumers

    async def keep_group(self) -> None:
        """Moves partitions when members come and go, as a broker does; until cancelled."""
        while True:
            await self.members_changed.wait()
            self.members_changed = anyio.Event()
            for index, partition in enumerate(self.streams):
                await self._assign(index, partition)

    async def _assign(self, index: int, partition: str) -> None:
        owner = self._owners.get(partition)
        wanted = self.members[index % len(self.members)] if self.members else None
        if owner is wanted:
            return
        self._owners.pop(partition, None)
        if owner is not None and owner in self.members:
            await owner.demote(partition)
        if wanted is not None and wanted in self.members:
            self._owners[partition] = wanted
            await wanted.promote(partition)


class Process:
    """One process that runs the pipeline: its environment, its run, and how it ends.

    A process that is `dead` stores and publishes nothing any more, whatever its tasks still try.
    """

    def __init__(self, world: World, shape: Shape) -> None:
        self.world = world
        self.shape = shape
        self.dead = False
        self.crash = self.crashed = False
        self.scope = anyio.CancelScope()
        self.ready = anyio.Event()
        self.running: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.before = {stream: world.stored(stream) for stream in world.streams}
        if not world.members:  # what members of a group told of before holds while they run
            for book in world.books.values():
                book.told = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.broker, name)

    # -- the run

    async def main(self, **options: Any) -> None:
        """Run until stopped or killed."""
        world, spec = self.world, self.shape.offset
        if world.kind != "group":
            for stream, book in world.books.items():
                book.begins(world.broker.stream(stream).locate(spec))
        pipeline = declare(self)
        with self.scope:
            try:
                async with pipeline.start(
                    environment=self, telemetry=Telemetry(self), **options
                ) as self.running:
                    self.ready.set()
                    self.result = await self.running.wait()
            except Exception as error:
                self.error = error
            finally:
                self.ready.set()

    def kill(self) -> None:
        self.dead = True
        self.scope.cancel()

    def observe(self, event: Event) -> None:
        if isinstance(event, Truncated) and not self.dead:
            self.world.told(event, self.shape)

    async def alive(self) -> None:
        if self.dead:
            await anyio.sleep_forever()

    # -- its environment

    async def query_offset(self, reference: str, stream: str) -> int | None:
        return await self.world.broker.query_offset(reference, stream)

    async def store_offset(self, reference: str, stream: str, offset: int, **options: Any) -> None:
        await self.alive()
        self.world.stores(stream, offset)
        await self.world.broker.store_offset(reference, stream, offset, **options)
        self.world.books[stream].firm()

    async def store_offset_verified(
        self, reference: str, stream: str, offset: int, **options: Any
    ) -> None:
        await self.alive()
        self.world.stores(stream, offset)
        await self.world.broker.store_offset_verified(reference, stream, offset, **options)
        self.world.books[stream].firm()

    @asynccontextmanager
    async def consumer(self, stream: str, **options: Any) -> AsyncIterator[Breaking]:
        async with self.world.broker.consumer(stream, **options) as consumer:
            yield Breaking(self, consumer)

    @asynccontextmanager
    async def super_stream_consumer(
        self, super_stream: str, *, single_active: bool = False, **options: Any
    ) -> AsyncIterator[Breaking]:
        if not single_active:
            async with self.world.broker.super_stream_consumer(super_stream, **options) as consumer:
                yield Breaking(self, consumer)
            return
        member = Member(self, **options)
        self.world.members.append(member)
        self.world.members_changed.set()
        try:
            yield Breaking(self, member)
        finally:
            self.world.members.remove(member)
            self.world.members_changed.set()
            member.leave()

    @asynccontextmanager
    async def publisher(self, stream: str, **options: Any) -> AsyncIterator[Any]:
        async with self.world.broker.publisher(stream, **options) as publisher:
            publish = publisher.publish_many

            async def publish_many(bodies: Sequence[Any], **more: Any) -> None:
                await self.alive()
                await publish(bodies, **more)

            publisher.publish_many = publish_many  # type: ignore[method-assign]
            yield publisher


class Breaking:
    """A consumer that raises when its process was told to `crash`: the producer is restarted."""

    def __init__(self, process: Process, consumer: Any) -> None:
        self._process = process
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def __aiter__(self) -> Breaking:
        return self

    async def __anext__(self) -> Any:
        delivery = await anext(self._consumer)
        if self._process.crash:
            self._process.crash, self._process.crashed = False, True
            raise RuntimeError("the source crashed, as it was told to")
        return delivery


class Member:
    """One member of a group of single active consumers."""

    def __init__(
        self,
        process: Process,
        *,
        on_active: Callable[[str], Awaitable[Any]],
        on_inactive: Callable[[str], Awaitable[None]],
        reference: str,
        offset: Offset = "first",
        hand_over_timeout: float = 60.0,
        **options: Any,
    ) -> None:
        self._process = process
        self._on_active = on_active
        self._on_inactive = on_inactive
        self._options = options
        self._turn: list[Any] = []
        self._open: dict[str, AsyncExitStack] = {}
        self.moving: list[str] = []
        self._scope = anyio.CancelScope()
        self._failure: Exception | None = None

    @property
    def active(self) -> list[str]:
        return list(self._open)

    @property
    def partitions(self) -> list[str]:
        return self._process.world.streams

    @property
    def positions(self) -> dict[str, int | None]:
        return dict.fromkeys(self.partitions)

    def __aiter__(self) -> Member:
        return self

    async def __anext__(self) -> Any:
        return await self._process.world.broker.next_of(self._take)

    def _take(self) -> Any:
        if self._failure is not None:
            raise self._failure
        for place, consumer in enumerate(self._turn):
            found = consumer.take()
            if found is not None:
                self._turn.append(self._turn.pop(place))
                return found
        return None

    async def promote(self, partition: str) -> None:
        process, world = self._process, self._process.world
        place = world.broker.stream(partition).locate(process.shape.offset)
        world.books[partition].begins(place)
        with anyio.CancelScope() as self._scope, self._moves(partition):
            try:
                offset = await self._on_active(partition)
                stack = self._open[partition] = AsyncExitStack()
                consumer = world.broker.consumer(partition, offset=offset, **self._options)
                self._turn.append(await stack.enter_async_context(consumer))
            except Exception as error:
                self._failure = error
        world.broker.changed.notify()

    async def demote(self, partition: str) -> None:
        stack = self._open.pop(partition, None)
        if stack is None:
            return
        self._turn = [consumer for consumer in self._turn if consumer.stream != partition]
        await stack.aclose()
        with anyio.CancelScope() as self._scope, self._moves(partition):
            await self._on_inactive(partition)

    @contextmanager
    def _moves(self, partition: str) -> Iterator[None]:
        self.moving.append(partition)
        try:
            yield
        finally:
            self.moving.remove(partition)

    def leave(self) -> None:
        """It is closed or killed, and so is what it waits for."""
        self._scope.cancel()


def declare(process: Process) -> Pipeline:
    """The pipeline as its module declares it, in one process."""
    world, shape = process.world, process.shape
    policies: dict[str, Any] = {
        "halt": Halt(), "drop": Drop(), "dead": DeadLetter(DEAD, max_ratio=None)
    }  # fmt: skip
    source = {"stream": StreamProducer, "super": SuperStreamProducer}.get(world.kind)
    options: dict[str, Any] = {"offset": shape.offset, "on_truncated": shape.on_truncated}
    if source is None:
        source, options["single_active"] = SuperStreamProducer, True
    pipeline = Pipeline(
        NAME,
        source("orders", **options),
        retry=Retry(attempts=shape.attempts, backoff=Backoff(initial=shape.backoff)),
        on_failure=policies[shape.policy],
        max_in_flight=shape.window,
        commit_every=shape.commit_every,
        drain_timeout=shape.drain_timeout,
    )

    def fails(message: Message[Any], *, in_batch: bool) -> bool:
        script = world.scripts[message.stream][message.offset]
        if world.mended or script.in_batch is not in_batch:
            return False
        world.tries[message.stream, message.offset] += 1
        return world.tries[message.stream, message.offset] <= script.fails

    @pipeline.processor(concurrency=shape.concurrency, max_demand=3)
    async def process_(message: Message[dict]) -> None:
        await process.alive()
        world.handling(message)
        stream, offset = message.stream, message.offset
        script = world.scripts[stream][offset]
        if script.action == "slow":
            await anyio.sleep(3)
        if script.action == "early":
            message.settle()
            world.finished(stream, offset)
        elif fails(message, in_batch=False):
            if script.how == "raise":
                raise ValueError("as it was told to")
            message.fail("as it was told to", retry=script.how == "fail")
        elif script.action == "drop":
            message.drop()
            world.finished(stream, offset)
        elif not shape.batch:
            world.finished(stream, offset)

    if shape.batch:

        @pipeline.batcher(size=min(shape.batch, shape.window), batch_timeout=2.0)
        async def store(batch: Batch[dict]) -> None:
            await anyio.sleep(0.5)
            await process.alive()
            bad = [message for message in batch if fails(message, in_batch=True)]
            if any(world.scripts[m.stream][m.offset].how == "raise" for m in bad):
                raise ValueError("as it was told to")
            for message in bad:
                script = world.scripts[message.stream][message.offset]
                message.fail("as it was told to", retry=script.how == "fail")
            for message in batch:
                if message not in bad:
                    world.finished(message.stream, message.offset)

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        if shape.policy == "drop":
            world.finished(failure.message.stream, failure.message.offset)

    return pipeline


class ListLike:
    """Can be iterated again, and fails again."""

    def __init__(self, items: Callable[[], Any]) -> None:
        self._items = items

    def __iter__(self) -> Any:
        return self._items()


class Generator:
    """Makes iterables that give 0, 1, 2 ... up to `count`, and raise ZeroDivisionError then."""

    def __init__(self, count: int) -> None:
        self.count = count

    def generator(self) -> Any:
        yield from range(self.count)
        raise ZeroDivisionError("the source is broken")

    async def asynchronous(self) -> Any:
        for item in self.generator():
            yield item

    def mapped(self) -> Any:
        """Goes on behind the item that failed, if it is asked."""
        numbers = [*range(self.count), None, *range(5)]
        return map(self._number, numbers)

    def _number(self, number: int | None) -> int:
        return 1 // 0 if number is None else number

    def listed(self) -> Any:
        return ListLike(self.generator)


SOURCE_KINDS = {
    "generator": Generator.generator,
    "asynchronous": Generator.asynchronous,
    "mapped": Generator.mapped,
    "listed": Generator.listed,
}


async def run_failing_source(
    kind: str, count: int, slice_size: int
) -> tuple[list[int], BaseException | None]:
    """Run a pipeline over a source that fails; what was handled, and how it ended."""
    handled: list[int] = []
    source = IterableProducer(SOURCE_KINDS[kind](Generator(count)), slice_size=slice_size)
    pipeline = Pipeline("source", source, max_in_flight=7)

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        handled.append(message.data)

    async with pipeline.start() as running:
        result = await running.wait()
    return handled, result.error
