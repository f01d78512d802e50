"""A batcher and its batch processors: gathers messages, lines the batches up, runs the handler.

Batches that share a partition or a key are handled one after the other; a batch that waits to be
tried again keeps its place in that order, and holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from flowstream.errors import HandlerTimeout
from flowstream.pipeline.batch import Batch, again
from flowstream.pipeline.deciders.batch_scheduler import BatchScheduler
from flowstream.pipeline.deciders.batching import Batching, Rejected
from flowstream.pipeline.handlers.calls import handle_batch, passes
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.processes import batch_elsewhere
from flowstream.pipeline.handlers.return_checks import hash_of
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.policies import Retry
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import BatchReady, HandlerDone, Retried
from flowstream.texts import describe


class Batcher(Pool):
    """One batcher. `inherits`: messages carry the partition key the processors used."""

    def __init__(
        self,
        state: RunState,
        options: BatcherOptions,
        ack_tracker: AckTracker,
        failure_handler: FailureHandler,
        *,
        handler: Callable[..., Any],
        is_async: bool,
        inherits: bool,
        phase: str,
        retry: Retry | None,
    ) -> None:
        super().__init__(state, options, "batcher", options.timeout)
        self.ack_tracker = ack_tracker
        self.failure_handler = failure_handler
        self.partitioned = inherits or options.partition_by is not None
        self.phase = phase
        self._partition_by: Any = options.partition_by
        self.parked = 0
        self.batching = Batching(
            options.name, options.size, options.batch_timeout, max_bytes=options.max_bytes
        )
        self.scheduler = BatchScheduler(serial=options.concurrency == 1)
        self._handler = handler
        self._is_async = is_async
        self._retry = retry
        self._resizing: int | None = None
        self._held_back: list[tuple[list[Message[Any]], bool]] = []
        self._armed = False
        self._draining = False
        self._handling: dict[WorkerState, Batch[Any]] = {}
        self._partition()

    # -- in

    def put(self, messages: list[Message[Any]], plain: bool) -> None:
        """Add messages; `plain` ones have neither a key nor a wish to be flushed."""
        if self._resizing is not None:
            self._held_back.append((messages, plain))
            return
        now = self.state.clock()
        if self._partition_by is not None:
            messages = self._keyed(messages)
        if plain:
            try:
                self._line_up(self.batching.put(messages, now), now)
            except Rejected as rejected:
                self._refused(messages, rejected, now)
        else:
            self._put_each(messages, now)
        if self._draining:
            self.flush("drain")
        if not self._armed and (deadline := self.batching.deadline) is not None:
            self._armed = True
            self.state.at(deadline, self._expire)

    def flush(self, trigger: str) -> None:
        """Close all open batches."""
        self._line_up(self.batching.flush(trigger), self.state.clock())

    def drain(self) -> None:
        """Close all open batches, and from now on every batch as soon as it has messages."""
        self._draining = True
        self.flush("drain")

    @property
    def waiting(self) -> int:
        held = sum(len(messages) for messages, _ in self._held_back)
        return self.batching.messages + self.scheduler.messages + held

    @property
    def idle(self) -> bool:
        """Nothing open, lined up, handled or parked."""
        return not (self.batching.open or self.scheduler.batches or self.busy or self._held_back)

    @property
    def stalled(self) -> bool:
        """Whatever is here waits in open batches."""
        return not (self.scheduler.batches or self.busy)

    def resize(self, workers: int) -> None:
        """Change how many batches are handled at a time, once what was taken in is through."""
        self._resizing = workers
        self.flush("resize")
        self._settle_size()

    def _settle_size(self) -> None:
        if self._resizing is None or self.scheduler.batches:
            return
        workers, self._resizing = self._resizing, None
        self.scheduler = BatchScheduler(serial=workers == 1)
        self.set_workers(workers)
        self._partition()
        held, self._held_back = self._held_back, []
        for messages, plain in held:
            self.put(messages, plain)

    def _partition(self) -> None:
        """Partitions are as many as workers; one worker keeps the order without them."""
        count = self.concurrency
        self.batching.partition = (
            (lambda message: message._hash % count) if self.partitioned and count > 1 else None
        )

    def _keyed(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        key = self._partition_by
        good: list[Message[Any]] = []
        wrong: list[Failure] = []
        for message in messages:
            try:
                message._hash = hash_of(key(message))
                good.append(message)
            except BaseException as error:
                if passes(error):
                    raise
                failure = Failure(message, f"partition_by raised {describe(error)}", error=error)
                wrong.append(self._stamp(failure, 1))
        self.failure_handler.put(wrong)
        return good

    def _put_each(self, messages: list[Message[Any]], now: float) -> None:
        try:
            self._line_up(self.batching.put_each(messages, now), now)
        except Rejected as rejected:
            self._refused(messages, rejected, now)

    def _refused(self, messages: list[Message[Any]], rejected: Rejected, now: float) -> None:
        """The batch key or size function raised for one message: it fails, the rest goes on."""
        error = rejected.__cause__
        assert error is not None
        self._line_up(rejected.closed, now)
        message = messages[rejected.index]
        failure = Failure(
            message, f"the batch key or size function: {describe(error)}", error=error
        )
        self.failure_handler.put([self._stamp(failure, 1)])
        self._put_each(messages[rejected.index + 1 :], now)

    def _line_up(self, batches: list[Batch[Any]], now: float) -> None:
        for batch in batches:
            if self.partitioned and batch.partition is None:
                batch.partition = 0
            try:
                self.scheduler.put(batch)
            except BaseException as error:
                if passes(error):
                    raise
                self._reject(batch, error)
                continue
            if self.state.telemetry.active:
                self.state.emit(
                    BatchReady(
                        self.state.name,
                        self.name,
                        batch.size,
                        batch.trigger,
                        now - batch.opened,
                    )
                )
        if batches:
            self.idle_workers.wake(len(batches))

    def _reject(self, batch: Batch[Any], error: BaseException) -> None:
        """The batch key does not compare with others': the batch cannot be put in its order."""
        reason = f"the batch key: {describe(error)}"
        failures = [Failure(message, reason, error=error) for message in batch._own]
        self.failure_handler.put([self._stamp(failure, batch.attempt) for failure in failures])

    def _expire(self) -> None:
        now = self.state.clock()
        self._line_up(self.batching.expire(now), now)
        deadline = self.batching.deadline
        self._armed = deadline is not None
        if deadline is not None:
            self.state.at(deadline, self._expire)

    # -- work

    async def work(self, worker: WorkerState) -> None:
        while worker.index < self.concurrency:
            batch = self.scheduler.take()
            if batch is None:
                self.rest()
                if (
                    not self.scheduler.ready
                ):  # resting may have closed batches to relieve the window
                    await self.idle_workers.wait(worker.index)
                continue
            if self.state.halts and not (batch := self._split_at_halt(batch)):
                continue
            self._handling[worker] = batch
            worker.hold(list(batch._own), self.state.clock())
            await self._batch(worker, batch)
            self.release(worker)
            self._handling.pop(worker, None)
            self._settle_size()
            await anyio.lowlevel.checkpoint()

    def _split_at_halt(self, batch: Batch[Any]) -> Batch[Any] | None:
        """The batch without what lies past a halt; None when nothing is left of it."""
        go, held = self.state.split_at_halt(batch._own)
        if not held:
            return batch
        self.ack_tracker.hold(held)
        if not go:
            self._done(batch)
            return None
        rest = Batch(
            go, batcher=batch.batcher, key=batch.key, partition=batch.partition,
            trigger=batch.trigger, opened=batch.opened, attempt=batch.attempt,
        )  # fmt: skip
        self.scheduler.swap(batch, rest)
        return rest

    async def _batch(self, worker: WorkerState, batch: Batch[Any]) -> None:
        state, own = self.state, worker.messages
        batch.messages = list(own)
        error: BaseException | None = None
        with state.handling(self.name, own) as tell:
            with anyio.CancelScope() as worker.scope:
                if self.options.processes:
                    error = await batch_elsewhere(self._handler, worker, batch, self.processes)
                else:
                    threads = None if self._is_async else self.state.threads
                    error = await handle_batch(self._handler, batch, worker, threads=threads)
            if worker.scope.cancelled_caught:
                error = HandlerTimeout(f"{self.name} took longer than {self.timeout:g} s")
            worker.scope = None
            tell(own, error)
        seconds = state.clock() - worker.since
        self.handled += len(own)
        self.seconds += seconds
        failures = await self._settle(worker, batch, error)
        if state.telemetry.active:
            state.emit(HandlerDone(state.name, self.name, len(own), len(failures), seconds))

    async def _settle(
        self, worker: WorkerState, batch: Batch[Any], error: BaseException | None
    ) -> list[Failure]:
        """Settle what is well, see to what failed, and return the failures."""
        if self.ack_tracker.early:
            await self.ack_tracker.settle_early()
        own = worker.messages
        if error is not None:
            reason = describe(error)
            failures = [Failure(message, reason, error=error) for message in own]
        else:
            flagged = [message for message in own if message._extra is not None]
            failures = [f for m in flagged if (f := m._more().failure) is not None]
            dropped = [m for m in flagged if m.dropped is not None and m.failed is None]
            if failures or dropped:
                own = [m for m in own if m.failed is None and m.dropped is None]
                failed = [failure.message for failure in failures]
                worker.messages = failed + own + dropped
                if dropped:
                    await self.ack_tracker.settle(dropped, "dropped")
                    worker.messages = failed + own
            if own:
                await self.ack_tracker.settle(own, "ok")
                worker.messages = [failure.message for failure in failures]
        if failures:
            self._failed(batch, [self._stamp(failure, batch.attempt) for failure in failures])
        else:
            self._done(batch)
        worker.messages = []
        return failures

    # -- failures

    def _failed(self, batch: Batch[Any], failures: list[Failure]) -> None:
        """Dispose of what may not be tried again; then try the rest again, in its place."""
        self.failed += len(failures)
        self.state.failures.attempted(failures)
        delay = None if self._retry is None else self._retry.delay(batch.attempt)
        final = [f for f in failures if delay is None or not f.retry]
        again_for = [f for f in failures if delay is not None and f.retry]
        retry = [f.message for f in again_for]
        due = self.state.clock() + (delay or 0)
        if retry and due > self.state.deadline:
            self._give_up(batch, retry)
            retry = []

        def disposed(_: list[Failure]) -> None:
            if retry:
                self._park(batch, again_for, delay or 0.0, due)
            else:
                self._done(batch)

        if final:
            self.failure_handler.put(final, disposed)
        else:
            disposed([])

    def _park(self, batch: Batch[Any], failures: list[Failure], delay: float, due: float) -> None:
        state, first = self.state, failures[0]
        messages = [failure.message for failure in failures]
        once_more = again(batch, messages)
        state.failures.retried(failures)
        self.scheduler.swap(batch, once_more)
        self.parked += len(messages)
        self.retried += len(messages)
        state.retried += len(messages)

        def resume() -> None:
            self.parked -= len(messages)
            self.scheduler.resume(once_more)
            self.idle_workers.wake(1)

        def give_up() -> None:
            self.parked -= len(messages)
            self._give_up(once_more, once_more._own)
            self._done(once_more)

        state.park(due, resume, give_up)
        if state.telemetry.active:
            state.emit(
                Retried(
                    state.name, self.name, len(messages), batch.attempt, delay, first.kind,
                    self.phase, first.reason,
                )
            )  # fmt: skip

    def _give_up(self, batch: Batch[Any], messages: list[Message[Any]]) -> None:
        """Leave messages to the next run, and with them what must not overtake them."""
        if self.scheduler.serial or batch.partition is not None or batch.key is not None:
            for message in messages:
                self.state.stop_at(message)
        self.ack_tracker.hold(messages)

    def _done(self, batch: Batch[Any]) -> None:
        self.scheduler.done(batch)
        if self.scheduler.ready:
            self.idle_workers.wake(self.scheduler.ready)
        self._settle_size()
        self.state.rested()

    def _stamp(self, failure: Failure, attempts: int) -> Failure:
        failure.phase, failure.stage, failure.attempts = self.phase, self.name, attempts
        return failure

    async def crashed(self, worker: WorkerState, error: BaseException) -> None:
        """What a broken batch processor had in its hands fails, and goes to the policy."""
        batch = self._handling.pop(worker, None)
        failures = [
            self._stamp(
                Failure(message, f"the stage crashed: {describe(error)}", error=error),
                message.attempt,
            )
            for message in worker.unsettled
        ]
        self.release(worker)
        if batch is not None:
            if failures:
                self.failure_handler.put(failures, lambda _: self._done(batch))
            else:
                self._done(batch)
