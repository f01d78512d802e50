"""Writes down what happens in a pipeline, from the places where its declaration meets the world.

`recorded` puts itself around the producer, the handlers and the sinks of a pipeline for as long as
a test runs, and takes itself away again. The stages in between are those of every run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any

from flowstream.pipeline import (
    Acknowledger,
    Backlog,
    Batch,
    Codec,
    Declaration,
    Declared,
    Failure,
    Intake,
    Message,
    Pipeline,
    Producer,
    RunContext,
    Signal,
    Sink,
    Slice,
    SourcePartition,
    Write,
)
from flowstream.telemetry import Event, Received
from flowstream.testing.results import HandledBatch, Outcome

Place = tuple[str, int]
"""A message's stream and offset."""


def place_of(message: Message[Any]) -> Place:
    return message.stream, message.offset


class Record:
    """What happened in one run. An observer, too: it counts what came in, and tells of changes."""

    def __init__(self, changed: Signal) -> None:
        self.changed = changed
        self.crashed = False
        self.received = 0
        self.settled: dict[Place, tuple[str, Any]] = {}
        self.failures: dict[Place, Failure] = {}
        self.attempts: dict[Place, int] = {}
        self.committed: dict[str, int] = {}
        self._batches: dict[int, HandledBatch] = {}
        self._numbers = count()

    @property
    def batches(self) -> list[HandledBatch]:
        return [batch for _, batch in sorted(self._batches.items())]

    def observe(self, event: Event) -> None:
        if isinstance(event, Received):
            self.received += event.messages
        self.changed.notify()

    def tried(self, messages: Sequence[Message[Any]], attempt: int) -> None:
        """A handler got messages, for the `attempt`th time."""
        for message in messages:
            place = place_of(message)
            self.attempts[place] = max(attempt, self.attempts.get(place, 0))

    @contextmanager
    def handling(self, batch: Batch[Any]) -> Iterator[None]:
        """Write a batch down as its handler gets it, and what the handler raises."""
        messages, number = list(batch.messages), next(self._numbers)
        self.tried(messages, batch.attempt)
        self._batches[number] = seen = HandledBatch(
            batcher=batch.batcher,
            data=tuple(message.data for message in messages),
            offsets=tuple(message.offset for message in messages),
            trigger=batch.trigger,
            key=batch.key,
            partition=batch.partition,
            attempt=batch.attempt,
        )
        try:
            yield
        except BaseException as error:
            self._batches[number] = dataclasses.replace(seen, error=error)
            raise

    @property
    def places(self) -> list[Place]:
        """Every message that a handler or the acknowledger saw, in order."""
        return sorted({*self.attempts, *self.failures, *self.settled})

    def outcome(self, place: Place) -> Outcome:
        """What became of a message."""
        status, data = self.settled.get(place, ("open", None))
        failure = self.failures.get(place)
        if status == "open" and failure is not None and not self.crashed:
            status, data = "halted", failure.message.data
        attempts = self.attempts.get(place, 0)
        if failure is None or status in ("ok", "dropped"):
            return Outcome(*place, status, data, attempts=attempts)
        return Outcome(
            *place,
            status,
            data,
            reason=failure.reason,
            phase=failure.phase,
            stage=failure.stage,
            error=failure.error,
            attempts=max(attempts, failure.attempts),
        )


@contextmanager
def recorded(
    pipeline: Pipeline, record: Record, *, producer: Producer, lifespan: Any
) -> Iterator[None]:
    """Run `pipeline` inside with another producer and lifespan, and everything written down."""
    before = pipeline.declaration
    processor = before.processor
    pipeline.declaration = dataclasses.replace(
        before,
        producer=RecordedProducer(producer, record),
        options=dataclasses.replace(before.options, lifespan=lifespan),
        processor=None if processor is None else _processor(processor, record),
        on_failed=_on_failed(before, record),
        batchers={
            name: _sink(declared, record) if declared.sink else _batcher(declared, record)
            for name, declared in before.batchers.items()
        },
    )
    try:
        yield
    finally:
        pipeline.declaration = before


class RecordedProducer(Producer):
    """The producer, with an acknowledger on every partition. After a crash nothing is committed."""

    def __init__(self, producer: Producer, record: Record) -> None:
        self._producer = producer
        self.resumable = producer.resumable
        self._record = record
        self.intake: RecordedIntake | None = None
        self._pushed: SourcePartition | None = None

    async def open(self, context: RunContext) -> None:
        await self._producer.open(context)

    async def close(self) -> None:
        await self._producer.close()

    async def run(self, intake: Intake) -> None:
        self.intake = RecordedIntake(intake, self._record)
        await self._producer.run(self.intake)

    async def push(self, bodies: list[Any], *, stream: str) -> None:
        """Deliver messages beside the producer's own; they have no offsets to commit."""
        assert self.intake is not None
        if self._pushed is None:
            self._pushed = self.intake.open(stream, commits=False)
        await self._pushed.send(bodies)

    async def commit(self, stream: str, offset: int) -> None:
        if not self._record.crashed:
            await self._producer.commit(stream, offset)
            self._record.committed[stream] = offset

    async def stored_offset(self, stream: str) -> int | None:
        return await self._producer.stored_offset(stream)

    async def is_shared(self, stream: str) -> bool:
        return await self._producer.is_shared(stream)

    async def verify(self, stream: str, offset: int) -> None:
        if not self._record.crashed:
            await self._producer.verify(stream, offset)

    async def caught_up(self, positions: Mapping[str, int | None]) -> bool:
        return await self._producer.caught_up(positions)

    def reads(self) -> Sequence[str] | None:
        return self._producer.reads()

    async def backlog(self, stream: str, behind: int | None) -> Backlog | None:
        return await self._producer.backlog(stream, behind)

    def describe(self) -> Mapping[str, Any]:
        return self._producer.describe()


class RecordedIntake:
    """A `Intake` whose partitions tell the record what is settled."""

    def __init__(self, intake: Intake, record: Record) -> None:
        self._intake = intake
        self._record = record

    @property
    def context(self) -> RunContext:
        return self._intake.context

    def open(
        self,
        stream: str,
        *,
        codec: Codec | None = None,
        acknowledger: Acknowledger | None = None,
        commits: bool = True,
        committed: int | None = None,
    ) -> SourcePartition:
        if committed is not None:
            self._record.committed[stream] = committed
        return self._intake.open(
            stream,
            codec=codec,
            acknowledger=RecordedAcknowledger(acknowledger, self._record),
            commits=commits,
            committed=committed,
        )


class RecordedAcknowledger(Acknowledger):
    """Tells the source's own acknowledger, if it has one, and then the record."""

    def __init__(self, acknowledger: Acknowledger | None, record: Record) -> None:
        self._acknowledger = acknowledger
        self._record = record

    async def acknowledge(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        if self._record.crashed:
            return
        if self._acknowledger is not None:
            await self._acknowledger.acknowledge(messages, outcome)
        for message in messages:
            self._record.settled[place_of(message)] = outcome, message.data


def _processor(declared: Any, record: Record) -> Any:
    handler = declared.handler

    def tried(taken: Message[Any] | Slice[Any]) -> None:
        for message in taken if isinstance(taken, Slice) else (taken,):
            record.tried([message], message.attempt)

    return _around(declared, _before(handler, declared.signature.is_async, tried))


def _on_failed(declaration: Declaration, record: Record) -> Any:
    def failed(failure: Failure) -> None:
        record.failures[place_of(failure.message)] = failure

    declared = declaration.on_failed
    if declared is not None:
        return _around(declared, _before(declared.handler, declared.signature.is_async, failed))

    async def on_failed(failure: Failure) -> None:
        failed(failure)

    other = declaration.first
    signature = dataclasses.replace(other.signature, name="on_failed", is_async=True, resource=None)
    return Declared(on_failed, signature)


def _batcher(declared: Any, record: Record) -> Any:
    handler = declared.handler
    if declared.signature.is_async:

        async def handle(batch: Batch[Any], *args: Any, **resources: Any) -> Any:
            with record.handling(batch):
                return await handler(batch, *args, **resources)

        return _around(declared, handle)

    def handle_in_thread(batch: Batch[Any], *args: Any, **resources: Any) -> Any:
        with record.handling(batch):
            return handler(batch, *args, **resources)

    return _around(declared, handle_in_thread)


def _sink(declared: Any, record: Record) -> Any:
    return dataclasses.replace(declared, sink=RecordedSink(declared.sink, record))


class RecordedSink(Sink):
    """The sink, whose batches are written down."""

    def __init__(self, sink: Sink, record: Record) -> None:
        self._sink = sink
        self._record = record

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Write]:
        async with self._sink.writer(context) as write:

            async def recorded_write(batch: Batch[Any]) -> None:
                with self._record.handling(batch):
                    await write(batch)

            yield recorded_write


def _around(declared: Any, handler: Callable[..., Any]) -> Any:
    """The declaration with another handler; worker processes would not know it: threads do."""
    options = declared.options
    if getattr(options, "processes", False):
        options = dataclasses.replace(options, processes=False)
    return dataclasses.replace(declared, handler=handler, options=options)


def _before(
    handler: Callable[..., Any], is_async: bool, tell: Callable[[Any], None]
) -> Callable[..., Any]:
    """The handler, of the same kind, that tells what it is given first."""
    if is_async:

        async def handle(item: Any, *args: Any, **resources: Any) -> Any:
            tell(item)
            return await handler(item, *args, **resources)

        return handle

    def handle_in_thread(item: Any, *args: Any, **resources: Any) -> Any:
        tell(item)
        return handler(item, *args, **resources)

    return handle_in_thread
