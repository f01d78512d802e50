"""A batcher: gathers messages into batches, and hands those that are closed to its processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.batching import Batching, Rejected
from flowstream.pipeline.deciders.queues import stable_hash
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.handlers.return_checks import keys_of
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.batch_processor import BatchProcessors
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import BatchReady
from flowstream.texts import describe


class Batcher:
    """One batcher. `keyed`: its messages are in the order of the processors' keys."""

    def __init__(
        self,
        state: RunState,
        options: BatcherOptions,
        failure_handler: FailureHandler,
        processors: BatchProcessors,
        *,
        partition_by: Callable[[Message[Any]], Any] | None,
        keyed: bool,
    ) -> None:
        self.state = state
        self.name = options.name
        self.options = options
        self.failure_handler = failure_handler
        self.processors = processors
        self._partition_by = partition_by
        self._keyed_before = keyed and partition_by is None
        self.batching = Batching(
            options.name, options.size, options.batch_timeout, max_bytes=options.max_bytes
        )
        self._armed = False
        self._draining = False
        self._partition(options.concurrency)
        state.stages.append(self)

    def put(self, part: Slice[Any], *, decided: bool) -> None:
        """Add messages. `decided`: some may have a key, or ask for a flush."""
        now = self.state.clock()
        if self._partition_by is not None:
            part = Slice.of(self._keyed(part.messages))
        if decided:
            self._put_each(part.messages, now)
        else:
            messages = part.messages if self.batching.splits else []
            try:
                self._hand_on(self.batching.put(part, now), now)
            except Rejected as rejected:
                self._refused(messages, rejected, now)
        if self._draining:
            self.flush("drain")
        if not self._armed and (deadline := self.batching.deadline) is not None:
            self._armed = True
            self.state.timers.at(deadline, self._expire)

    def flush(self, trigger: str) -> None:
        """Close all open batches."""
        self._hand_on(self.batching.flush(trigger), self.state.clock())

    def drain(self) -> None:
        """Close all open batches, and from now on every batch as soon as it has messages."""
        self._draining = True
        self.flush("drain")

    @property
    def waiting(self) -> int:
        """Messages in open batches, and in closed ones that are not settled yet."""
        return self.batching.messages + self.processors.waiting

    @property
    def idle(self) -> bool:
        """Nothing is in an open batch, or on its way through the processors."""
        return not self.batching.open and self.processors.idle

    @property
    def stalled(self) -> bool:
        """Whatever is here waits in open batches."""
        return self.processors.stalled

    @property
    def concurrency(self) -> int:
        """How many batches are handled at the same time."""
        return self.processors.concurrency

    def handling(self) -> list[str]:
        return self.processors.handling()

    def resize(self, workers: int) -> None:
        """Change how many batches are handled at a time, once what is closed by now is through."""
        self.flush("resize")
        self._partition(workers)
        self.processors.resize(workers)

    # -- inside

    def _partition(self, workers: int) -> None:
        """Partitions are as many as workers; one worker keeps the order without them."""
        if workers == 1 or not (self._keyed_before or self._partition_by is not None):
            self.batching.partition = None
        elif self._keyed_before:
            self.batching.partition = lambda message: message._order.spread % workers
        else:
            self.batching.partition = lambda message: message._hash % workers

    def _keyed(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Number messages by their partition keys; those for which that fails are failures."""
        assert self._partition_by is not None
        keys, _, bad = keys_of(self._partition_by, messages)
        wrong = dict(bad)
        failures: list[Failure] = []
        good: list[Message[Any]] = []
        for index, message in enumerate(messages):
            error = wrong.get(index)
            if error is None:
                message._hash = stable_hash(keys[index])
                good.append(message)
            elif passes(error):
                raise error
            else:
                failures.append(
                    Failure(message, f"partition_by raised {describe(error)}", error=error)
                )
        self.failure_handler.put([self.processors.stamp(failure, 1) for failure in failures])
        return good

    def _put_each(self, messages: list[Message[Any]], now: float) -> None:
        try:
            self._hand_on(self.batching.put_each(messages, now), now)
        except Rejected as rejected:
            self._refused(messages, rejected, now)

    def _refused(self, messages: list[Message[Any]], rejected: Rejected, now: float) -> None:
        """The batch key or size function raised for one message: it fails, the rest goes on."""
        error = rejected.__cause__
        assert error is not None
        self._hand_on(rejected.closed, now)
        message = messages[rejected.index]
        failure = Failure(
            message, f"the batch key or size function: {describe(error)}", error=error
        )
        self.failure_handler.put([self.processors.stamp(failure, 1)])
        self._put_each(messages[rejected.index + 1 :], now)

    def _hand_on(self, batches: list[Batch[Any]], now: float) -> None:
        for batch in batches:
            if self.partitioned and batch.partition is None:
                batch.partition = 0
            if self.processors.put(batch) and self.state.telemetry.active:
                self.state.emit(
                    BatchReady(
                        self.state.name, self.name, batch.size, batch.trigger, now - batch.opened
                    )
                )

    @property
    def partitioned(self) -> bool:
        """Do batches keep the order of keys?"""
        return self._keyed_before or self._partition_by is not None

    def _expire(self) -> None:
        now = self.state.clock()
        self._hand_on(self.batching.expire(now), now)
        deadline = self.batching.deadline
        self._armed = deadline is not None
        if deadline is not None:
            self.state.timers.at(deadline, self._expire)
