"""A batcher: collects messages in batches, and passes closed batches to its processors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.batching import Batching, Rejected
from flowstream.pipeline.deciders.queues import stable_hash
from flowstream.pipeline.deciders.rolling import Rolling
from flowstream.pipeline.handlers.calls import keyed
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.batch_processor import BatchProcessors
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import BatchReady
from flowstream.texts import describe


class Batcher:
    """One batcher. `in_order`: its messages are in the order of the processors' keys.

    If not `keyed`, messages with different batch keys share a batch. `rolling` is how a sink wants
    its batches to be closed.
    """

    def __init__(
        self,
        state: RunState,
        options: BatcherOptions,
        failure_handler: FailureHandler,
        processors: BatchProcessors,
        *,
        partition_by: Callable[[Message[Any]], Any] | None,
        in_order: bool,
        keyed: bool = True,
        rolling: Rolling | None = None,
    ) -> None:
        self.state = state
        self.name: str = options.name
        self.options = options
        self.failure_handler = failure_handler
        self.processors = processors
        self._partition_by = partition_by
        self._keyed_before = in_order and partition_by is None
        self.batching: Final = Batching(options, keyed=keyed, rolling=rolling)
        self._expires = math.inf
        self._draining = False
        self._partition(options.concurrency)
        state.stages.append(self)

    def put(self, part: Slice[Any], *, decided: bool = False) -> None:
        """Add messages. `decided`: some may have a batch key or a flush."""
        now = self.state.clock()
        if self._partition_by is not None:
            part = Slice.of(self._numbered(part.messages))
        if decided:
            self._put_each(part.messages, now)
        else:
            try:
                self._dispatch(self.batching.put(part, now), now)
            except Rejected as rejected:
                self._put_each(self._refused(part.messages, rejected, now), now)
        if self._draining:
            self.flush("drain")
        self._arm()

    def flush(self, trigger: str) -> None:
        """Close all open batches."""
        self._dispatch(self.batching.flush(trigger), self.state.clock())

    def drain(self) -> None:
        """Close all open batches, and from now on each batch at once."""
        self._draining = True
        self.flush("drain")

    @property
    def waiting(self) -> int:
        """Messages in open batches, and in closed ones that are not settled yet."""
        return self.batching.messages + self.processors.waiting

    @property
    def held(self) -> int:
        """How many messages wait for messages before them, and are in no batch."""
        return 0

    @property
    def waits_for(self) -> list[tuple[str, int]]:
        """The messages that those wait for, by stream and offset."""
        return []

    @property
    def idle(self) -> bool:
        """Whether no message is in a batch, open or closed."""
        return not self.batching.open and self.processors.idle

    @property
    def stalled(self) -> bool:
        """Whether all messages here are in open batches."""
        return self.processors.stalled

    @property
    def concurrency(self) -> int:
        """How many batches may be handled at the same time."""
        return self.processors.concurrency

    def handling(self) -> list[str]:
        return self.processors.handling()

    def resize(self, workers: int) -> None:
        """Change how many batches are handled at a time, after those that are closed now."""
        self.flush("resize")
        self._partition(workers)
        self.processors.resize(workers)

    # -- inside

    def _partition(self, workers: int) -> None:
        """One partition for each worker. A single worker keeps the order without partitions."""
        if workers == 1 or not (self._keyed_before or self._partition_by is not None):
            self.batching.partition = None
        elif self._keyed_before:
            self.batching.partition = lambda message: message._order.spread % workers
        else:
            self.batching.partition = lambda message: message._hash % workers

    def _numbered(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Give messages the numbers of their partition keys. Those without a valid key fail."""
        assert self._partition_by is not None
        found = keyed(self._partition_by, messages)
        for message, key in zip(found.messages, found.keys, strict=True):
            message._hash = stable_hash(key)
        self.failure_handler.put([self.processors.stamp(each, 1) for each in found.failures])
        return found.messages

    def _put_each(self, messages: list[Message[Any]], now: float) -> None:
        while messages:
            try:
                self._dispatch(self.batching.put_each(messages, now), now)
                return
            except Rejected as rejected:
                messages = self._refused(messages, rejected, now)

    def _refused(
        self, messages: list[Message[Any]], rejected: Rejected, now: float
    ) -> list[Message[Any]]:
        """The batch key or size function raised for one message: fail it, and return the others."""
        error = rejected.__cause__
        assert error is not None
        self._dispatch(rejected.closed, now)
        reason = f"the batch key or size function: {describe(error)}"
        failure = Failure(messages[rejected.index], reason, error=error)
        self.failure_handler.put([self.processors.stamp(failure, 1)])
        return messages[rejected.index + 1 :]

    def _dispatch(self, batches: list[Batch[Any]], now: float) -> None:
        for batch in batches:
            if self.partitioned and batch.partition is None:
                batch.partition = 0
            if self.processors.put(batch) and self.state.telemetry.active:
                self.state.telemetry.emit(
                    BatchReady(
                        self.state.name, self.name, batch.size, batch.trigger, now - batch.opened
                    )
                )

    @property
    def by_key(self) -> bool:
        """Whether it has partitions that follow from the order that a message is part of."""
        return self._keyed_before and self.batching.partition is not None

    @property
    def partitioned(self) -> bool:
        """Whether batches keep the order of keys."""
        return self._keyed_before or self._partition_by is not None

    def _arm(self) -> None:
        """Set the timer of the batch that is closed next, unless it is set."""
        deadline = self.batching.deadline
        if deadline is not None and deadline < self._expires:
            self._expires = deadline
            self.state.timers.at(deadline, partial(self._expire, deadline))

    def _expire(self, when: float) -> None:
        if when != self._expires:
            return  # a batch with an earlier end came, which has set another timer since
        now = self.state.clock()
        self._dispatch(self.batching.expire(now), now)
        self._expires = math.inf
        self._arm()
