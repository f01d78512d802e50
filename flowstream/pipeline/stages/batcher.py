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
from flowstream.pipeline.answers import hash_of
from flowstream.pipeline.batch import Batch, again
from flowstream.pipeline.batching import Batching, Rejected
from flowstream.pipeline.core import Core
from flowstream.pipeline.handlers import handle_batch, passes
from flowstream.pipeline.lineup import Lineup
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import BatcherOptions
from flowstream.pipeline.policies import Retry
from flowstream.pipeline.processes import batch_elsewhere
from flowstream.pipeline.stages.acknowledger import Settlement
from flowstream.pipeline.stages.disposal import Disposal
from flowstream.pipeline.stages.pool import Pool
from flowstream.pipeline.stages.slot import Slot
from flowstream.telemetry import BatchReady, HandlerDone, Retried
from flowstream.texts import describe


class Batcher(Pool):
    """One batcher. `inherits`: messages carry the partition key the processors used."""

    def __init__(
        self,
        core: Core,
        options: BatcherOptions,
        settlement: Settlement,
        disposal: Disposal,
        *,
        handler: Callable[..., Any],
        is_async: bool,
        inherits: bool,
        phase: str,
        retry: Retry | None,
    ) -> None:
        super().__init__(core, options, "batcher", options.handler_timeout)
        self.settlement = settlement
        self.disposal = disposal
        self.partitioned = inherits or options.partition_by is not None
        self.phase = phase
        self._partition_by = options.partition_by
        self.parked = 0
        self.batching = Batching(
            options.name, options.size, options.timeout, max_bytes=options.max_bytes
        )
        self.lineup = Lineup(serial=options.concurrency == 1)
        self._handler = handler
        self._is_async = is_async
        self._retry = retry
        self._resizing: int | None = None
        self._held_back: list[tuple[list[Message[Any]], bool]] = []
        self._armed = False
        self._draining = False
        self._handling: dict[Slot, Batch[Any]] = {}
        self._partition()

    # -- in

    def put(self, messages: list[Message[Any]], plain: bool) -> None:
        """Add messages; `plain` ones have neither a key nor a wish to be flushed."""
        if self._resizing is not None:
            self._held_back.append((messages, plain))
            return
        now = self.core.clock()
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
            self.core.at(deadline, self._expire)

    def flush(self, trigger: str) -> None:
        """Close all open batches."""
        self._line_up(self.batching.flush(trigger), self.core.clock())

    def drain(self) -> None:
        """Close all open batches, and from now on every batch as soon as it has messages."""
        self._draining = True
        self.flush("drain")

    @property
    def waiting(self) -> int:
        held = sum(len(messages) for messages, _ in self._held_back)
        return self.batching.messages + self.lineup.messages + held

    @property
    def idle(self) -> bool:
        """Nothing open, lined up, handled or parked."""
        return not (self.batching.open or self.lineup.batches or self.busy or self._held_back)

    @property
    def stalled(self) -> bool:
        """Whatever is here waits in open batches."""
        return not (self.lineup.batches or self.busy)

    def resize(self, workers: int) -> None:
        """Change how many batches are handled at a time, once what was taken in is through."""
        self._resizing = workers
        self.flush("resize")
        self._settle_size()

    def _settle_size(self) -> None:
        if self._resizing is None or self.lineup.batches:
            return
        workers, self._resizing = self._resizing, None
        self.lineup = Lineup(serial=workers == 1)
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
        self.disposal.put(wrong)
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
        self.disposal.put([self._stamp(failure, 1)])
        self._put_each(messages[rejected.index + 1 :], now)

    def _line_up(self, batches: list[Batch[Any]], now: float) -> None:
        for batch in batches:
            if self.partitioned and batch.partition is None:
                batch.partition = 0
            try:
                self.lineup.put(batch)
            except BaseException as error:
                if passes(error):
                    raise
                self._reject(batch, error)
                continue
            if self.core.telemetry.active:
                self.core.emit(
                    BatchReady(
                        self.core.name,
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
        self.disposal.put([self._stamp(failure, batch.attempt) for failure in failures])

    def _expire(self) -> None:
        now = self.core.clock()
        self._line_up(self.batching.expire(now), now)
        deadline = self.batching.deadline
        self._armed = deadline is not None
        if deadline is not None:
            self.core.at(deadline, self._expire)

    # -- work

    async def work(self, slot: Slot) -> None:
        while slot.index < self.concurrency:
            batch = self.lineup.take()
            if batch is None:
                self.rest()
                if not self.lineup.ready:  # resting may have closed batches to relieve the window
                    await self.idle_workers.wait(slot.index)
                continue
            if self.core.halts and not (batch := self._sifted(batch)):
                continue
            self._handling[slot] = batch
            slot.hold(list(batch._own), self.core.clock())
            await self._batch(slot, batch)
            self.release(slot)
            self._handling.pop(slot, None)
            self._settle_size()
            await anyio.lowlevel.checkpoint()

    def _sifted(self, batch: Batch[Any]) -> Batch[Any] | None:
        """The batch without what lies past a halt; None when nothing is left of it."""
        go, held = self.core.sift(batch._own)
        if not held:
            return batch
        self.settlement.hold(held)
        if not go:
            self._done(batch)
            return None
        rest = Batch(
            go, batcher=batch.batcher, key=batch.key, partition=batch.partition,
            trigger=batch.trigger, opened=batch.opened, attempt=batch.attempt,
        )  # fmt: skip
        self.lineup.swap(batch, rest)
        return rest

    async def _batch(self, slot: Slot, batch: Batch[Any]) -> None:
        core, own = self.core, slot.messages
        batch.messages = list(own)
        error: BaseException | None = None
        with core.handling(self.name, own) as tell:
            with anyio.CancelScope() as slot.scope:
                if self.options.processes:
                    error = await batch_elsewhere(self._handler, slot, batch, self.processes)
                else:
                    threads = None if self._is_async else self.core.threads
                    error = await handle_batch(self._handler, batch, slot, threads=threads)
            if slot.scope.cancelled_caught:
                error = HandlerTimeout(f"{self.name} took longer than {self.timeout:g} s")
            slot.scope = None
            tell(own, error)
        seconds = core.clock() - slot.since
        self.handled += len(own)
        self.seconds += seconds
        failures = await self._settle(slot, batch, error)
        if core.telemetry.active:
            core.emit(HandlerDone(core.name, self.name, len(own), len(failures), seconds))

    async def _settle(
        self, slot: Slot, batch: Batch[Any], error: BaseException | None
    ) -> list[Failure]:
        """Settle what is well, see to what failed, and return the failures."""
        if self.settlement.early:
            await self.settlement.settle_early()
        own = slot.messages
        if error is not None:
            reason = describe(error)
            failures = [Failure(message, reason, error=error) for message in own]
        else:
            rare = [message for message in own if message._extra is not None]
            failures = [f for m in rare if (f := m._more().failure) is not None]
            dropped = [m for m in rare if m.dropped is not None and m.failed is None]
            if failures or dropped:
                own = [m for m in own if m.failed is None and m.dropped is None]
                failed = [failure.message for failure in failures]
                slot.messages = failed + own + dropped
                if dropped:
                    await self.settlement.settle(dropped, "dropped")
                    slot.messages = failed + own
            if own:
                await self.settlement.settle(own, "ok")
                slot.messages = [failure.message for failure in failures]
        if failures:
            self._failed(batch, [self._stamp(failure, batch.attempt) for failure in failures])
        else:
            self._done(batch)
        slot.messages = []
        return failures

    # -- failures

    def _failed(self, batch: Batch[Any], failures: list[Failure]) -> None:
        """Dispose of what may not be tried again; then try the rest again, in its place."""
        self.failed += len(failures)
        self.core.failures.attempted(failures)
        delay = None if self._retry is None else self._retry.delay(batch.attempt)
        final = [f for f in failures if delay is None or not f.retry]
        again_for = [f for f in failures if delay is not None and f.retry]
        retry = [f.message for f in again_for]
        due = self.core.clock() + (delay or 0)
        if retry and due > self.core.deadline:
            self._give_up(batch, retry)
            retry = []

        def disposed(_: list[Failure]) -> None:
            if retry:
                self._park(batch, again_for, delay or 0.0, due)
            else:
                self._done(batch)

        if final:
            self.disposal.put(final, disposed)
        else:
            disposed([])

    def _park(self, batch: Batch[Any], failures: list[Failure], delay: float, due: float) -> None:
        core, first = self.core, failures[0]
        messages = [failure.message for failure in failures]
        once_more = again(batch, messages)
        core.failures.retried(failures)
        self.lineup.swap(batch, once_more)
        self.parked += len(messages)
        self.retried += len(messages)
        core.retried += len(messages)

        def resume() -> None:
            self.parked -= len(messages)
            self.lineup.resume(once_more)
            self.idle_workers.wake(1)

        def give_up() -> None:
            self.parked -= len(messages)
            self._give_up(once_more, once_more._own)
            self._done(once_more)

        core.park(due, resume, give_up)
        if core.telemetry.active:
            core.emit(
                Retried(
                    core.name, self.name, len(messages), batch.attempt, delay, first.kind,
                    self.phase, first.reason,
                )
            )  # fmt: skip

    def _give_up(self, batch: Batch[Any], messages: list[Message[Any]]) -> None:
        """Leave messages to the next run, and with them what must not overtake them."""
        if self.lineup.serial or batch.partition is not None or batch.key is not None:
            for message in messages:
                self.core.stop_at(message)
        self.settlement.hold(messages)

    def _done(self, batch: Batch[Any]) -> None:
        self.lineup.done(batch)
        if self.lineup.ready:
            self.idle_workers.wake(self.lineup.ready)
        self._settle_size()
        self.core.rested()

    def _stamp(self, failure: Failure, attempts: int) -> Failure:
        failure.phase, failure.stage, failure.attempts = self.phase, self.name, attempts
        return failure

    async def crashed(self, slot: Slot, error: BaseException) -> None:
        """What a broken batch processor had in its hands fails, and goes to the policy."""
        batch = self._handling.pop(slot, None)
        failures = [
            self._stamp(
                Failure(message, f"the stage crashed: {describe(error)}", error=error),
                message.attempt,
            )
            for message in slot.unsettled
        ]
        self.release(slot)
        if batch is not None:
            if failures:
                self.disposal.put(failures, lambda _: self._done(batch))
            else:
                self._done(batch)
