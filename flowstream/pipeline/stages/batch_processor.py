"""The batch processors of one batcher: workers that call its handler with batches.

Batches that share a partition or a key are handled one after the other. A batch that waits for its
retry keeps its place in that order, and delays no other batch (deciders/batch_scheduler.py).

A sink that is `ordered` gets one batch after the other, however many workers there are: a batch may
hand its turn on when it is written, before it is confirmed. A message that fails there is settled
before those behind it are written, so these are put back and given again. If the sink itself fails,
the run ends: no policy may give up messages of which nobody knows whether they are written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from flowstream.errors import HandlerTimeout
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.batch_scheduler import BatchScheduler
from flowstream.pipeline.handlers.calls import as_exception, handle_batch, passes
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.processes import batch_elsewhere
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.policies import Retry
from flowstream.pipeline.sink import Turn
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import HandlerDone, Retried
from flowstream.texts import describe

ROUTED = (
    "message.to(...) was called in a batch handler, where it cannot route any more; call it in a "
    "processor"
)


class BatchProcessors(Pool):
    """The workers of one batcher. `phase` is "batch", or "sink" if a sink is their handler."""

    def __init__(
        self,
        state: RunState,
        options: BatcherOptions,
        ack_tracker: AckTracker,
        failure_handler: FailureHandler,
        *,
        handler: Callable[..., Any],
        is_async: bool,
        phase: str,
        retry: Retry | None,
        ordered: bool = False,
    ) -> None:
        super().__init__(state, options, "batcher", options.timeout)
        self.ack_tracker = ack_tracker
        self.failure_handler = failure_handler
        self.phase = phase
        self.phases: tuple[str, ...] = (phase,)
        self.ordered = ordered
        self.scheduler: BatchScheduler = self._scheduler(options.concurrency)
        self._handler = handler
        self._is_async = is_async
        self._retry = retry
        self._resizes: deque[tuple[int, list[Batch[Any]]]] = deque()
        """The numbers of workers to change to, each with the batches that were made for it."""
        self._handling: dict[WorkerState, Batch[Any]] = {}

    def _scheduler(self, workers: int) -> BatchScheduler:
        return BatchScheduler(serial=self.ordered or workers == 1)

    # -- in

    def put(self, batch: Batch[Any]) -> bool:
        """Take a closed batch. False if its key cannot be compared with those of others."""
        if self._resizes:
            self._resizes[-1][1].append(batch)
            return True
        return self._schedule(batch)

    def _schedule(self, batch: Batch[Any]) -> bool:
        try:
            self.scheduler.put(batch)
        except BaseException as error:
            if passes(error):
                raise
            self._reject(batch, error)
            return False
        self.idle_workers.wake(1)
        return True

    def _reject(self, batch: Batch[Any], error: BaseException) -> None:
        reason = f"the batch key: {describe(error)}"
        failures = [Failure(message, reason, error=error) for message in batch._slice.messages]
        self.failure_handler.put([self.stamp(failure, batch.attempt) for failure in failures])

    @property
    def waiting(self) -> int:
        held = (batch for _, batches in self._resizes for batch in batches)
        return self.scheduler.messages + sum(len(batch._slice) for batch in held)

    @property
    def idle(self) -> bool:
        """Whether no batch waits, is handled or is parked."""
        return self.stalled and not any(batches for _, batches in self._resizes)

    @property
    def stalled(self) -> bool:
        """Whether no batch waits for a handler or is in one."""
        return not (self.scheduler.batches or self.busy)

    def resize(self, workers: int) -> None:
        """Change the number of workers, after the batches that are here.

        Batches that come meanwhile wait, because partitions depend on the number of workers.
        """
        self._resizes.append((workers, []))
        self._settle_size()

    def _settle_size(self) -> None:
        while self._resizes and not self.scheduler.batches:
            workers, batches = self._resizes.popleft()
            self.scheduler = self._scheduler(workers)
            self.set_workers(workers)
            for batch in batches:
                self._schedule(batch)

    # -- work

    async def work(self, worker: WorkerState) -> None:
        while worker.index < self.concurrency:
            batch = self.scheduler.take()
            if batch is None:
                self.state.rested()
                if not self.scheduler.ready:  # resting may have closed batches under pressure
                    await self.idle_workers.wait(worker.index)
                continue
            if self.state.halts and not (batch := self._split_at_halt(batch)):
                continue
            self._handling[worker] = batch
            worker.hold(batch._slice, self.state.clock())
            await self._batch(worker, batch)
            self.release(worker)
            self._handling.pop(worker, None)
            self._settle_size()
            if self.scheduler.ready or self.state.blocked:
                await anyio.lowlevel.checkpoint()

    def _split_at_halt(self, batch: Batch[Any]) -> Batch[Any] | None:
        """The batch without the messages behind a halt; None if no message is left."""
        go, behind = self.state.split_at_halt(batch._slice.messages)
        if not behind:
            return batch
        self.ack_tracker.abandon(behind)
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
        state, part = self.state, batch._slice
        batch._settled = part.settled
        if self._retry is not None:
            batch._remember()
        traced = state.telemetry.tracer is not None
        error: BaseException | None = None
        turn = _Turn(self, batch) if self.ordered else None
        handler = self._handler if turn is None else partial(self._handler, turn=turn)
        hooks = state.hooks
        token = None if hooks is None else hooks.batch_begins(batch)
        with state.handling(self.name, part) as tell:
            with self.working(worker) as scope:
                if self.options.processes:
                    error = await batch_elsewhere(handler, worker, batch, self.processes)
                else:
                    threads = None if self._is_async else state.threads
                    error = await handle_batch(handler, batch, worker, threads=threads)
            if scope is not None and scope.cancelled_caught:
                error = HandlerTimeout(f"{self.name} took longer than {self.timeout:g} s")
            tell(part.messages if traced else (), error)
        if hooks is not None:
            hooks.batch_ended(token, error)
        seconds = state.clock() - worker.since
        self._count(len(part), seconds)
        failures = await self._settle(worker, batch, error, () if turn is None else turn.left)
        if state.telemetry.active:
            state.telemetry.emit(
                HandlerDone(state.name, self.name, len(part), len(failures), seconds)
            )

    async def _settle(
        self,
        worker: WorkerState,
        batch: Batch[Any],
        error: BaseException | None,
        left: Sequence[Message[Any]],
    ) -> list[Failure]:
        """Settle the messages that succeeded, retry or give up the others. Returns the failures.

        Those that are `left` are handled again afterwards.
        """
        if self.ack_tracker.early:
            await self.ack_tracker.settle_early()
        part = batch._slice
        failures: list[Failure] = []
        if error is not None and self.ordered:
            self._end_run(batch, part.messages, error)
            worker.messages = []
            return []
        if error is not None:
            reason = describe(error)
            failures = [Failure(message, reason, error=error) for message in part.messages]
        elif part.flagged:
            failures = await self._settle_flagged(worker, part, left)
        else:
            await self.ack_tracker.settle(part, "ok")
        worker.messages = [failure.message for failure in failures]
        if failures:
            self._failed(batch, [self.stamp(failure, batch.attempt) for failure in failures], left)
        else:
            self._done(batch)
        worker.messages = []
        return failures

    async def _settle_flagged(
        self,
        worker: WorkerState,
        part: Slice[Any],
        left: Sequence[Message[Any]],
    ) -> list[Failure]:
        """Settle a batch in which the handler decided something about some messages."""
        failures: list[Failure] = []
        dropped: list[Message[Any]] = []
        own: list[Message[Any]] = []
        later = set(map(id, left))
        for message in part.messages:
            extra = message._extra
            if extra is not None:
                if extra.routed and extra.failure is None and extra.dropped is None:
                    message.fail(ROUTED, retry=False)
                if extra.failure is not None:
                    failures.append(extra.failure)
                    continue
                if extra.dropped is not None:
                    dropped.append(message)
                    continue
            if id(message) not in later:
                own.append(message)
        failed = [failure.message for failure in failures]
        worker.messages = failed + own + dropped
        if dropped:
            await self.ack_tracker.settle(Slice.of(dropped), "dropped")
            worker.messages = failed + own
        if own:
            await self.ack_tracker.settle(Slice.of(own), "ok")
        return failures

    # -- failures

    def _failed(
        self, batch: Batch[Any], failures: list[Failure], left: Sequence[Message[Any]]
    ) -> None:
        """Give up what may not be retried, then retry the others, in the place of the batch."""
        self.state.failures.attempted(failures)
        delay = None if self._retry is None else self._retry.delay(batch.attempt)
        final = [f for f in failures if delay is None or not f.retry]
        again_for = [f for f in failures if delay is not None and f.retry]
        due = self.state.clock() + (delay or 0)
        if again_for and not self.state.timers.in_time(due):
            self._give_up(batch, [failure.message for failure in again_for])
            again_for = []

        def disposed(_: list[Failure]) -> None:
            if again_for:
                self._park(batch, again_for, delay or 0.0, due)
            elif left:
                self._resume(batch, left)
            else:
                self._done(batch)

        if final:
            # A line of batches is in no order of offsets: what a dead letter waits for may be
            # in the batch behind. Only what is written in order must wait for the letter.
            self.failure_handler.put(final, disposed, overtake=not self.ordered)
        else:
            disposed([])

    def _park(self, batch: Batch[Any], failures: list[Failure], delay: float, due: float) -> None:
        state, first = self.state, failures[0]
        once_more = batch._again([failure.message for failure in failures])
        count = len(failures)
        state.failures.retried(failures)
        self.scheduler.swap(batch, once_more)
        self.parked += count
        self.retried += count
        state.retried += count

        def resume() -> None:
            self.parked -= count
            self.scheduler.resume(once_more)
            self.idle_workers.wake(1)

        def give_up() -> None:
            self.parked -= count
            self._give_up(once_more, once_more._slice.messages)
            self._done(once_more)

        state.timers.park(due, resume, give_up)
        if state.telemetry.active:
            state.emit(
                Retried(
                    state.name, self.name, count, batch.attempt, delay, first.kind, self.phase,
                    first.reason,
                )
            )  # fmt: skip

    def _resume(self, batch: Batch[Any], left: Sequence[Message[Any]]) -> None:
        """Handle the rest of a batch, in its place."""
        rest = Batch(
            list(left), batcher=batch.batcher, key=batch.key, partition=batch.partition,
            trigger=batch.trigger, opened=batch.opened, attempt=batch.attempt,
        )  # fmt: skip
        self.scheduler.swap(batch, rest)
        self.scheduler.resume(rest)
        self.idle_workers.wake(1)

    def _end_run(
        self, batch: Batch[Any], messages: Sequence[Message[Any]], error: BaseException
    ) -> None:
        """An ordered sink failed: the next run continues before its messages."""
        self.state.fail(as_exception(f"the sink of {self.name!r} failed", error))
        self.ack_tracker.abandon(messages)
        self._done(batch)

    def pass_on(self, batch: Batch[Any]) -> None:
        """Let the next batch begin, although this one is not settled."""
        self.scheduler.pass_on(batch)
        if self.scheduler.ready:
            self.idle_workers.wake(self.scheduler.ready)

    def _give_up(self, batch: Batch[Any], messages: list[Message[Any]]) -> None:
        """Leave messages to the next run, and with them those that must not overtake them."""
        if self.scheduler.serial or batch.partition is not None or batch.key is not None:
            for message in messages:
                self.state.stop_at(message)
        self.ack_tracker.abandon(messages)

    def _done(self, batch: Batch[Any]) -> None:
        self.scheduler.done(batch)
        if self.scheduler.ready:
            self.idle_workers.wake(self.scheduler.ready)
        self._settle_size()
        self.state.rested()

    def stamp(self, failure: Failure, attempts: int) -> Failure:
        """Set where a failure happened."""
        failure.phase, failure.stage, failure.attempts = self.phase, self.name, attempts
        return failure

    async def crashed(self, worker: WorkerState, error: BaseException) -> None:
        """The messages that a crashed batch processor held fail, and go to the policy."""
        batch = self._handling.pop(worker, None)
        if self.ordered and batch is not None:
            self._end_run(batch, worker.unsettled, error)
            self.release(worker)
            return
        failures = [
            self.stamp(
                Failure(message, f"the stage crashed: {describe(error)}", error=error),
                message.attempt,
            )
            for message in worker.unsettled
        ]
        self.release(worker)
        if batch is not None:
            if failures:
                self.failure_handler.put(failures, lambda _: self._done(batch), overtake=True)
            else:
                self._done(batch)


class _Turn(Turn):
    """The turn of one batch of an ordered sink. `left` are the messages to be given again."""

    def __init__(self, processors: BatchProcessors, batch: Batch[Any]) -> None:
        self.left: Sequence[Message[Any]] = ()
        self._processors = processors
        self._batch = batch

    def pass_on(self) -> None:
        self._processors.pass_on(self._batch)

    def again(self, messages: Sequence[Message[Any]]) -> None:
        self.left = messages
