"""Runs a pipeline with everything around it in memory, and reports what became of each message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from types import TracebackType
from typing import Annotated, Any, Self

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from flowstream.client import AmqpMessage, payload_of
from flowstream.connectors import DeadLetter, StreamProducer, SuperStreamProducer
from flowstream.errors import ConfigurationError, FlowstreamError
from flowstream.pipeline import Pipeline, Producer, RunningPipeline, RunResult
from flowstream.schema import ANYTHING, SECONDS, make, takes
from flowstream.telemetry import Telemetry
from flowstream.testing.clock import Backend, is_virtual, run_virtual, threads_take_time
from flowstream.testing.memory import MemoryEnvironment
from flowstream.testing.recording import Place, Record, under_test
from flowstream.testing.results import DeadLettered, RunReport

HOURS = 6 * 3600.0
PUSHED = "pushed"
"""The partition of messages pushed into a pipeline that reads no stream."""


class StillBusy(FlowstreamError):
    """A pipeline under test did not come to an end with its messages in time."""


@dataclass(frozen=True)
class PipelineTesterArguments:
    """What `PipelineTester(...)` takes."""

    pipeline: Annotated[Pipeline, "the pipeline under test"]
    messages: Annotated[Iterable[Any], ANYTHING, "messages that are put into its source"] = ()
    _: KW_ONLY
    environment: Annotated[MemoryEnvironment | None, "streams of your own"] = None
    producer: Annotated[Producer | None, "instead of the pipeline's producer"] = None
    lifespan: Annotated[
        Callable[[], AbstractAsyncContextManager[Any]] | None, "instead of the pipeline's lifespan"
    ] = None
    patience: Annotated[float | None, SECONDS, "seconds that anything may take"] = None


class PipelineTester:
    """A pipeline under test. Its streams, stored offsets, sinks and dead letters are in memory.

        async with PipelineTester(pipeline) as tester:      # started; at the end drained
            result = await tester.push({"id": 1}, {"id": 2})
        assert result.statuses == ["ok", "dead_lettered"]

        result = PipelineTester(pipeline).run_sync({"id": 1})       # the same in a plain test

    Messages are what `MemoryEnvironment.append` takes: bodies, AMQP messages, anything that JSON
    can hold, and markers. A tester may be used for several runs, one after the other: streams and
    offsets stay. `producer` and `lifespan` are used instead of the pipeline's own. `patience` is
    how many seconds anything may take: by default 6 hours in virtual time, and 30 s in real time.
    """

    @takes(PipelineTesterArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(PipelineTesterArguments, arguments, values, "PipelineTester")
        self.pipeline: Pipeline = options.pipeline
        pipeline = options.pipeline
        self.environment: MemoryEnvironment = options.environment or MemoryEnvironment()
        self.producer: Producer = options.producer or pipeline.producer
        self._lifespan = options.lifespan or pipeline.options.lifespan
        self._patience = options.patience
        self._record = Record(self.environment.changed)
        self._deliveries = 0
        self._pushed = 0
        self._running: RunningPipeline | None = None
        self._loop: EventLoopToken | None = None
        self._ended: RunResult | None = None
        self._reported = False
        self._life: AbstractAsyncContextManager[None] | None = None
        self.put(*options.messages)

    # -- runs

    async def __aenter__(self) -> Self:
        if self._life is not None:
            raise ConfigurationError(
                f"the tester of {self.pipeline!r} is started already; start it again after its "
                "block has ended"
            )
        self._life = self._run()
        try:
            await self._life.__aenter__()
        except BaseException:
            self._life = None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drains; raises the error that ended the run, unless a result has reported it."""
        assert self._life is not None
        life, self._life = self._life, None
        await life.__aexit__(kind, error, trace)

    async def run(
        self, *messages: Any, stream: str | None = None, key: str | None = None
    ) -> RunReport:
        """One whole run: put messages, start, handle all there is, drain. See `RunReport`."""
        self.put(*messages, stream=stream, key=key)
        async with self:
            await self.idle()
            await self.stop()
        return self.result

    def run_sync(
        self,
        *messages: Any,
        stream: str | None = None,
        key: str | None = None,
        backend: Backend = "asyncio",
    ) -> RunReport:
        """`run` on an event loop of its own, in virtual time. On a running loop, await `run`."""
        run = partial(self.run, *messages, stream=stream, key=key)
        return run_virtual(run, backend=backend)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        environment = self.environment
        self._record = record = Record(environment.changed)
        self._deliveries, self._pushed = len(environment.deliveries), 0
        self._reported, self._ended = False, None
        telemetry = Telemetry(record)
        with self._declared(), self._crashing(record):
            async with self.pipeline.start(
                environment=environment, telemetry=telemetry, hooks=record
            ) as running:
                self._running, self._loop = running, current_token()
                with threads_take_time(running.threads):
                    yield
                    running.stop()
                    self._ended = await running.wait()
        self._report()

    @property
    def running(self) -> RunningPipeline:
        """The pipeline as it runs: to pause it, look at its statistics, and so on."""
        if self._running is None:
            raise ConfigurationError("the tester is not started: `async with PipelineTester(...)`")
        return self._running

    # -- messages

    def put(self, *messages: Any, stream: str | None = None, key: str | None = None) -> list[Place]:
        """Add messages and markers to the source and return at once; the messages' places.

        `stream` is the producer's unless it is given; in a super stream, `key` says which
        partition.
        """
        if not messages:
            return []
        name = self._stream(stream, key)
        return [(name, offset) for offset in self.environment.append(name, messages)]

    async def push(
        self, *messages: Any, stream: str | None = None, key: str | None = None
    ) -> RunReport:
        """Add messages and wait until the pipeline is done with them, or ends.

        The result is theirs, and the batches are those that were handled meanwhile.
        """
        record, before = self._record, len(self._record.batches)
        if self._is_over():
            raise ConfigurationError(f"{self.pipeline!r} has ended, so no message can be pushed")
        self._check_loop("push")
        if isinstance(self.producer, StreamProducer):
            places = self.put(*messages, stream=stream, key=key)
        else:
            places = await self._push_beside(list(messages))
        await self._until(lambda: record.statuses.keys() >= set(places))
        return self._result(places, before)

    async def idle(self) -> RunReport:
        """Wait until everything that there is has been handled, or the run ends."""
        self._check_loop("idle")
        if isinstance(self.producer, StreamProducer):
            await self._until(self._is_idle)
        else:
            await self.running.wait_idle(60.0 if is_virtual() else 1.0)
        return self.result

    async def stop(self) -> RunReport:
        """Drain now, commit, and return the result of the whole run."""
        self.running.stop()
        self._ended = await self.running.wait()
        return self.result

    # -- what became of them

    @property
    def result(self) -> RunReport:
        """The run so far, or when it has ended the whole of it."""
        if isinstance(self.producer, StreamProducer):
            deliveries = self.environment.deliveries[self._deliveries :]
            places = [(d.stream, offset) for d in deliveries for offset in d.offsets]
        else:
            places = self._record.places
        return self._result(places, 0)

    @property
    def committed(self) -> dict[str, int]:
        """The stored offset of each stream."""
        return dict(self._record.offsets)

    def published(self, stream: str) -> list[Any]:
        """The payloads in a stream, such as one that a sink publishes to: bytes, or the values
        that AMQP messages hold instead."""
        return list(map(payload_of, self.environment.stream(stream).bodies))

    def dead_letters(self, stream: str | None = None) -> list[DeadLettered]:
        """The dead letters by stream and offset; in the policy's stream unless one is named."""
        if stream is None:
            policy = self.pipeline.options.on_failure
            if not isinstance(policy, DeadLetter):
                raise ConfigurationError(
                    f"{self.pipeline!r} has no DeadLetter policy: name a stream"
                )
            stream = policy.stream
        letters = map(_dead_lettered, self.environment.stream(stream).bodies)
        return sorted(letters, key=lambda letter: (letter.stream, letter.offset))

    # -- inside

    @contextmanager
    def _declared(self) -> Iterator[None]:
        """Inside, the pipeline has the producer and the lifespan of the test."""
        before = self.pipeline.declaration
        self.pipeline.declaration = under_test(
            before, producer=self.producer, lifespan=self._lifespan
        )
        try:
            yield
        finally:
            self.pipeline.declaration = before

    @contextmanager
    def _crashing(self, record: Record) -> Iterator[None]:
        """Inside, a `Crash()` kills the run; it may be the first thing that the source meets."""

        def crash() -> None:
            record.killed = True
            running = self.pipeline.running
            assert running is not None
            running.abort()

        self.environment.on_crash.append(crash)
        try:
            yield
        finally:
            self.environment.on_crash.remove(crash)

    def _report(self) -> None:
        """Raise what ended the run, unless that is known."""
        if self._ended is not None and not (self._reported or self._record.crashed):
            self._ended.raise_for_error()

    def _stream(self, stream: str | None, key: str | None) -> str:
        if stream is not None:
            return stream
        producer = self.producer
        if isinstance(producer, SuperStreamProducer):
            if key is None:
                raise ConfigurationError(
                    f"{producer.stream!r} is a super stream: say key= or stream= (a partition)"
                )
            return self.environment.route(producer.stream, key)
        if isinstance(producer, StreamProducer):
            return producer.stream
        raise ConfigurationError(
            f"{self.pipeline!r} reads no stream: push messages while it runs, or test it with "
            'producer=StreamProducer("any")'
        )

    async def _push_beside(self, messages: list[Any]) -> list[Place]:
        """Push into a pipeline with a producer of another kind, beside its own messages."""
        await self._until(lambda: self.running.phase == "running")
        first, self._pushed = self._pushed, self._pushed + len(messages)
        await self.running.push(messages, stream=PUSHED)
        return [(PUSHED, offset) for offset in range(first, self._pushed)]

    def _check_loop(self, name: str) -> None:
        """Raise an error if the pipeline cannot run meanwhile, because this is another loop."""
        if self._running and not self._is_over() and current_token() != self._loop:
            raise ConfigurationError(
                f"{name}: the tester of {self.pipeline!r} was started on another event loop: let "
                "its fixture and the tests that use it have the same one (with pytest-asyncio, "
                "the same loop_scope=)"
            )

    def _is_over(self) -> bool:
        return self.running.phase == "stopped"

    def _is_idle(self) -> bool:
        delivered = sum(
            len(delivery.bodies) for delivery in self.environment.deliveries[self._deliveries :]
        )
        return (
            self.environment.read.issuperset(self.producer.reads() or ())  # consumers are open
            and self.environment.exhausted
            and self._record.received >= delivered
            and not self.running.statistics().in_flight
        )

    async def _until(self, condition: Callable[[], bool]) -> None:
        patience = self._patience or (HOURS if is_virtual() else 30.0)
        with anyio.move_on_after(patience) as scope:
            await self._record.changed.until(lambda: condition() or self._is_over())
        if scope.cancelled_caught:
            statistics = self.running.statistics()
            busy = [f"{s.name} ({s.busy} busy, {s.waiting} waiting)" for s in statistics.stages]
            raise StillBusy(
                f"{self.pipeline!r} is not done after {patience:g} s: {statistics.in_flight} "
                f"messages in flight, {', '.join(busy)}"
            )

    def _result(self, places: Sequence[Place], batches_before: int) -> RunReport:
        record = self._record
        self._reported = self._reported or self._is_over()
        return RunReport(
            outcomes=tuple(map(record.outcome, places)),
            batches=tuple(record.batches[batches_before:]),
            committed=self.committed,
            run=self._ended,
            crashed=record.crashed,
        )


def _dead_lettered(body: bytes) -> DeadLettered:
    message = AmqpMessage(body)
    properties = message.application_properties or {}
    return DeadLettered(
        body=message.data or b"",
        stream=str(properties.get("x-stream", "")),
        offset=int(properties.get("x-offset", 0)),
        phase=str(properties.get("x-phase", "")),
        stage=str(properties.get("x-stage", "")),
        attempts=int(properties.get("x-attempts", 0)),
        reason=str(properties.get("x-reason", "")),
        error=str(properties.get("x-error", "")),
    )
