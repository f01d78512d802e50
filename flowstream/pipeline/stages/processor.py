"""The processors: workers that take slices, call the handler, and pass on what succeeded.

With partition_by (or one worker) a message that failed blocks the messages behind it until it is
settled, so no handler ever gets messages of one key in another order (deciders/queues.py). Without
them no message waits for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel

from flowstream.errors import HandlerTimeout
from flowstream.pipeline.deciders.key_load import HotKey
from flowstream.pipeline.deciders.queues import KeyedQueue, SliceQueue
from flowstream.pipeline.deciders.slice_sizer import SliceSizer
from flowstream.pipeline.handlers.calls import (
    fail,
    handle_slice,
    keyed,
    passes,
    process_async,
    process_sync,
)
from flowstream.pipeline.handlers.lending import lend, lend_for_keys
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.processes import process_elsewhere
from flowstream.pipeline.handlers.return_checks import discard
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.options import ProcessorOptions
from flowstream.pipeline.payload import Decoder
from flowstream.pipeline.policies import Retry
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState
from flowstream.signals import cancel_requests
from flowstream.telemetry import HandlerDone, Retried
from flowstream.texts import describe


class Downstream(Protocol):
    """What is behind the processors: the batchers, or the acknowledger."""

    @property
    def by_key(self) -> bool:
        """Whether it looks for the order that a message is part of."""

    async def put(self, part: Slice[Any], *, decided: bool) -> int:
        """Take processed messages. `decided`: some may have routes, keys or flushes.

        Returns how many failed, as they have a route that does not exist.
        """


class Processors(Pool):
    """The processor stage."""

    options: ProcessorOptions
    phases: tuple[str, ...] = ("prepare", "process")

    def __init__(
        self,
        state: RunState,
        options: ProcessorOptions,
        ack_tracker: AckTracker,
        failure_handler: FailureHandler,
        downstream: Downstream,
        *,
        handler: Callable[..., Any],
        is_async: bool,
        prepare: Callable[[list[Message[Any]]], Any] | None,
        partition_by: Callable[[Message[Any]], Any] | None,
        retry: Retry | None,
        decoder: Decoder,
    ) -> None:
        super().__init__(state, options, "processor", options.timeout)
        self.ack_tracker = ack_tracker
        self.failure_handler = failure_handler
        self.downstream = downstream
        one_by_one = options.processes and options.timeout is not None
        self.sizer: Final = SliceSizer(
            1 if one_by_one else options.max_demand, together=options.slices
        )
        self.queue: SliceQueue | KeyedQueue = (
            SliceQueue(ordered=options.concurrency == 1) if partition_by is None else KeyedQueue()
        )
        self._handler = handler
        self._is_async = is_async
        self._prepare = prepare
        self._partition_by = partition_by
        self._retry = retry
        self._decoder = decoder
        self._resizing: int | None = None
        self._held_back: list[Slice[Any]] = []
        state.stages.append(self)

    # -- in

    def put(self, part: Slice[Any]) -> None:
        """Queue messages for the workers, in their order."""
        if self._resizing is not None:
            self._held_back.append(part)
            return
        if isinstance(self.queue, KeyedQueue):
            assert self._partition_by is not None
            orders = None if part.rows else lend_for_keys(self._partition_by, part, self.queue)
            if orders is None:
                found = keyed(self._partition_by, part.messages)
                self.failure_handler.put([self._stamp(failure) for failure in found.failures])
                orders = self.queue.orders(found.keys, found.hashes)
                part = Slice.of(found.messages)
            self.queue.put(part, orders)
        else:
            self.queue.put(part)
        self.idle_workers.wake(self.queue.ready)

    @property
    def hot_key(self) -> HotKey | None:
        return self.queue.hot_key if isinstance(self.queue, KeyedQueue) else None

    @property
    def waiting(self) -> int:
        return self.queue.waiting + sum(map(len, self._held_back))

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.parked or self.busy)

    @property
    def stalled(self) -> bool:
        return self.idle

    def flush(self, trigger: str) -> None:
        """Do nothing: no message here waits for more messages."""

    def resize(self, workers: int) -> None:
        """Change the number of workers; between one and several only once no message is here."""
        self._resizing = workers
        self._settle_size()

    def _settle_size(self) -> None:
        """Change to the requested number of workers as soon as the order allows it.

        Any number of workers keeps keys in order. A single worker keeps the order of the stream.
        """
        if self._resizing is None:
            return
        keyed = isinstance(self.queue, KeyedQueue)
        ordered = not keyed and (self.queue.ordered or self._resizing == 1)
        if ordered and (self.queue.waiting or self.parked or self.busy or self.queue.blocked):
            return
        workers, self._resizing = self._resizing, None
        self.queue.ordered = keyed or workers == 1
        self.set_workers(workers)
        held, self._held_back = self._held_back, []
        for part in held:
            self.put(part)

    # -- work

    async def work(self, worker: WorkerState) -> None:
        worker.cancel_requests = cancel_requests()
        while worker.index < self.concurrency:
            size = self.sizer.size(self.queue.waiting, len(self.idle_workers) + 1)
            part = self.queue.take(worker.index, size, self._whole) if size else None
            if part is None:
                self.state.rested()
                await self.idle_workers.wait(worker.index)
                continue
            if self.queue.ready:  # such as keys of a slice that it has just divided
                self.idle_workers.wake(1)
            if self.state.halts:
                self.queue.assign(worker.index)
                part = self._split_at_halt(part)
            if len(part):
                worker.hold(part, self.state.clock())
                await self._slice(worker)
                self.release(worker)
            self.queue.release(worker.index)
            if self.queue.ready:
                self.idle_workers.wake(1)
            self._settle_size()
            if self.queue.waiting or self.state.blocked:
                await anyio.lowlevel.checkpoint()

    @property
    def _whole(self) -> int:
        """How large a slice is taken whole: processes work at the same time, so they share it."""
        return 0 if self.options.processes else self.sizer.whole

    def _split_at_halt(self, part: Slice[Any]) -> Slice[Any]:
        go, behind = self.state.split_at_halt(part.messages)
        self.ack_tracker.abandon(behind)
        for message in behind:
            self._unblock(message)  # those that wait for it are abandoned later
        return Slice.of(go)

    async def _slice(self, worker: WorkerState) -> None:
        state, part, started = self.state, worker.part, worker.since
        traced = state.telemetry.tracer is not None
        begun, before, prepared = started, 0.0, True
        with state.handling(self.name, part) as tell:
            if self._prepare is not None:
                prepared = await self._prepared(worker)
                begun = state.clock()
                before = max(begun - started - worker.waited, 0.0)
                worker.waited = 0.0
            if prepared:
                await (self._run_slice if self.options.slices else self._run)(worker)
            tell(worker.messages if traced else (), None)
        ended = state.clock()
        seconds = ended - started
        handled = len(part) - len(worker.skipped)
        if handled and prepared:
            # Waiting for a thread is no reason for smaller slices: more of them would wait longer.
            took = max(ended - begun - worker.waited, 0.0)
            # With keys, those of other keys are not put back: larger slices still pay.
            put_back = len(worker.skipped) if self._partition_by is None else 0
            self.sizer.learn(handled, took, before, put_back)
        self._count(handled, seconds)
        failed = 0
        if worker.altered or worker.skipped or part.flagged:
            failed = await self._pass_on(worker)
        else:
            if self.downstream.by_key:
                self.queue.assign(worker.index)
            failed = await self.downstream.put(part, decided=False)
            worker.messages = []
        if state.telemetry.active:
            state.telemetry.emit(HandlerDone(state.name, self.name, handled, failed, seconds))

    async def _run(self, worker: WorkerState) -> None:
        """Call the handler with the worker's messages, and again after each failure."""
        ordered, hooks = self.queue.ordered, self.state.hooks
        if worker.chosen is not None or hooks is not None or self.options.processes:
            worker.walk(worker.handed)
        else:
            worker.lend()
        while left := worker.left:
            failed: Message[Any] | None = None
            todo = [] if hooks is None else worker.walked[-left:]
            with self.working(worker) as scope:
                try:
                    failed = await self._call(worker, ordered)
                finally:
                    if hooks is not None:
                        hooks.attempted(todo[: left - worker.left])
            if self._may_be_cancelled(worker):  # if it is, the result does not count
                await anyio.lowlevel.checkpoint_if_cancelled()
            if scope is not None and scope.cancelled_caught:
                failed = self._timed_out(worker)
            if failed is not None and ordered:
                self.queue.assign(worker.index)
                self.queue.block(failed)
                self._put_back_blocked(worker)

    def _may_be_cancelled(self, worker: WorkerState) -> bool:
        """Whether the run may have been cancelled during a call of the handler.

        A handler that shields itself is not asked to end, and still the drain may have ended.
        """
        return worker.cancel_requests() > 0 or self.state.draining.cancel_called

    async def _call(self, worker: WorkerState, ordered: bool) -> Message[Any] | None:
        """Call the handler with the messages that are left. Returns the one that failed, if any."""
        if self.options.processes:
            return await process_elsewhere(self._handler, worker, ordered, processes=self.processes)
        threads = None if self._is_async else self.state.threads
        if worker.lent is not None:
            lent = await lend(self._handler, worker, threads=threads)
            if lent is None:
                return None
            worker.keep()
            if not worker.left or (ordered and lent.failed is not None):
                return lent if lent.failed is not None else None
        if threads is None:
            return await process_async(self._handler, worker.iterator, ordered)
        failed: Message[Any] | None = await threads.run(
            self.name, worker, process_sync, self._handler, worker.iterator, ordered
        )
        return failed

    async def _run_slice(self, worker: WorkerState) -> None:
        """Call a handler of slices. If it fails, the slice fails."""
        threads = None if self._is_async else self.state.threads
        part = worker.part if worker.chosen is None else Slice.of(list(worker.chosen))
        if not len(part):
            return
        if self.state.hooks is not None:
            self.state.hooks.attempted(part.messages)
        with self.working(worker) as scope:
            error = await handle_slice(self._handler, part, worker, threads=threads)
        if self._may_be_cancelled(worker):
            await anyio.lowlevel.checkpoint_if_cancelled()
        if scope is not None and scope.cancelled_caught:
            error = HandlerTimeout(f"{self.name} took longer than {self.timeout:g} s")
        if error is not None:
            self._fail_all(worker, error)
        elif self.queue.ordered:
            self.queue.assign(worker.index)
            for message in part.flagged:
                if message.failed is not None and not self.queue.is_behind(message):
                    self.queue.block(message)

    def _put_back_blocked(self, worker: WorkerState) -> None:
        """Put messages back that must wait for a failed one, and continue with the others."""
        todo: list[Message[Any]] = []
        behind: list[Message[Any]] = []
        for message in worker.iterator:
            (behind if self.queue.is_behind(message) else todo).append(message)
        self._put_back(worker, behind, seen=self._prepare is not None)
        worker.walk(todo)

    def _put_back(
        self, worker: WorkerState, messages: list[Message[Any]], *, seen: bool = True
    ) -> None:
        """Put messages back that wait for a failed one. If a callback has `seen` them, it sees them
        again, so what it has changed and decided is undone."""
        worker.skipped.update(map(id, messages))
        again = [self._undone(message) for message in messages] if seen else messages
        self.queue.put_back(worker.index, again)

    def _undone(self, message: Message[Any]) -> Message[Any]:
        try:
            return self._fresh(message, message.attempt)
        except BaseException as error:
            if passes(error):
                raise
            return message._clone(data=message.data, attempt=message.attempt)

    def _timed_out(self, worker: WorkerState) -> Message[Any] | None:
        """The handler took too long for its current message, which fails; go on behind it."""
        worker.keep()
        self.queue.assign(worker.index)
        late = worker.late
        rest = list(worker.iterator)
        taken = len(worker.walked) - len(rest)
        current = worker.walked[taken - 1] if taken else None
        worker.walk(rest)
        if current is None or current.failed is not None:
            return current
        if len(rest) != late:
            return self._begin_again(worker, current)
        error = HandlerTimeout(f"{self.name} took longer than {self.timeout:g} s")
        if not (self._is_async or self.options.processes):
            current = self._replace(worker, current)
        fail(current, error)
        return current

    def _begin_again(self, worker: WorkerState, message: Message[Any]) -> Message[Any]:
        """Try the message again: the handler got it after the one that was late."""
        clone = self._fresh(message, message.attempt)
        worker.messages = [m for m in worker.messages if m is not message]
        if self.queue.ordered:
            self.queue.block(clone)
        self.queue.retry(clone)
        self.idle_workers.wake(1)
        return clone

    def _replace(self, worker: WorkerState, message: Message[Any]) -> Message[Any]:
        """Continue with a clone: the thread that hangs still holds the message."""
        clone = self._fresh(message, message.attempt)
        worker.messages = [clone if m is message else m for m in worker.messages]
        return clone

    async def _prepared(self, worker: WorkerState) -> bool:
        """Call the prepare function, and choose the messages for the handler: all but those that it
        failed or dropped. If it raises, the slice fails."""
        assert self._prepare is not None
        messages = worker.messages
        worker.callback = "prepare"
        try:
            with self.working(worker) as scope:
                answer = await self._prepare(list(messages))
            if scope is not None and scope.cancelled_caught:
                raise HandlerTimeout(f"prepare took longer than {self.timeout:g} s")
            if answer is None or _the_same(answer, messages):
                self._choose(worker, messages)
                return True
            discard(answer)
            error: BaseException = TypeError(
                "prepare returns nothing, or the messages that it was given"
            )
        except BaseException as raised:
            if passes(raised):
                raise
            error = raised
        finally:
            worker.callback = ""
        self._fail_all(worker, error, "prepare")
        return False

    def _choose(self, worker: WorkerState, messages: list[Message[Any]]) -> None:
        """Leave out what prepare failed or dropped; if order is kept, also what waits for it."""
        if all(it.failed is None and it.dropped is None for it in messages):
            return
        self.queue.assign(worker.index)
        chosen: list[Message[Any]] = []
        behind: list[Message[Any]] = []
        for message in messages:
            extra = message._extra
            if self.queue.ordered and self.queue.is_behind(message):
                behind.append(message)
            elif extra is not None and extra.failure is not None:
                extra.failure.phase = "prepare"
                if self.queue.ordered:
                    self.queue.block(message)
            elif extra is None or extra.dropped is None:
                chosen.append(message)
        worker.chosen = chosen
        self._put_back(worker, behind)

    def _fail_all(self, worker: WorkerState, error: BaseException, phase: str = "process") -> None:
        """Fail the slice; if order is kept, only the first message of each key. Others wait.

        These objects count: a thread that was given up may just be making others of the slice.
        """
        self.queue.assign(worker.index)
        worker.messages = worker.messages
        behind: list[Message[Any]] = []
        for message in worker.handed:
            if self.queue.ordered and self.queue.is_behind(message):
                behind.append(message)
                continue
            fail(message, error).phase = phase
            if self.queue.ordered:
                self.queue.block(message)
        self._put_back(worker, behind)

    # -- out

    async def _pass_on(self, worker: WorkerState) -> int:
        """Pass on the messages of a slice by their results. Returns how many failed."""
        self.queue.assign(worker.index)
        if self.ack_tracker.early:
            await self.ack_tracker.settle_early()
        failures: list[Failure] = []
        dropped: list[Message[Any]] = []
        succeeded: list[Message[Any]] = []
        for message in worker.unsettled:
            extra = message._extra
            if extra is None:
                succeeded.append(message)
            elif extra.failure is not None:
                failures.append(self._stamp(extra.failure))
            elif extra.dropped is not None:
                dropped.append(message)
            else:
                extra.attempt, extra.routed = 1, False
                succeeded.append(message)
        self._failed(worker, failures)
        failed = len(failures)
        worker.messages = dropped + succeeded
        if dropped:
            await self.ack_tracker.settle(Slice.of(dropped), "dropped")
            worker.messages = succeeded
        if succeeded:
            failed += await self.downstream.put(Slice.of(list(succeeded)), decided=True)
            worker.messages = []
        if self.queue.blocked:
            for message in (*succeeded, *dropped):
                self._unblock(message)
        return failed

    def _stamp(self, failure: Failure) -> Failure:
        failure.phase, failure.stage = failure.phase or "process", self.name
        failure.attempts = failure.message.attempt
        return failure

    def _failed(self, worker: WorkerState, failures: list[Failure]) -> None:
        """Retry messages or give them up. If order is kept, only the first of each key has a delay:
        those of a slice that failed behind it are tried again after it."""
        state = self.state
        state.failures.attempted(failures)
        final: list[Failure] = []
        retried: dict[tuple[str, int], list[Failure]] = {}
        behind: list[Message[Any]] = []
        longest = 0.0
        for failure in failures:
            delay = None
            if failure.retry and self._retry is not None:
                delay = self._retry.delay(failure.attempts)
            due = state.clock() + (delay or 0)
            if delay is None:
                final.append(failure)
            elif not state.timers.in_time(due):
                self._give_up(failure.message)
            elif (clone := self._next_attempt(failure)) is None:
                final.append(failure)
            else:
                if self.queue.is_behind(failure.message):
                    behind.append(clone)
                else:
                    self._park(failure.message, clone, due)
                    longest = max(longest, delay)
                retried.setdefault((failure.kind, failure.attempts), []).append(failure)
        self.queue.put_back(worker.index, behind)
        for group in retried.values():
            self._report_retried(group, longest)
        self.failure_handler.put(final, each=self._disposed)

    def _report_retried(self, failures: list[Failure], delay: float) -> None:
        state, first = self.state, failures[0]
        state.failures.retried(failures)
        if state.telemetry.active:
            state.emit(
                Retried(
                    state.name, self.name, len(failures), first.attempts, delay, first.kind,
                    first.phase, first.reason,
                )
            )  # fmt: skip

    def _next_attempt(self, failure: Failure) -> Message[Any] | None:
        """The message as it was delivered, to be tried again.

        None if its body does not decode a second time.
        """
        message = failure.message
        try:
            clone = self._fresh(message, message.attempt + 1)
        except BaseException as error:
            if passes(error):
                raise
            failure.reason += f" (and decoding it again: {describe(error)})"
            return None
        self.retried += 1
        self.state.retried += 1
        return clone

    def _park(self, message: Message[Any], clone: Message[Any], due: float) -> None:
        """Try the message again later."""
        if self.queue.is_holder(message):
            self.queue.block(clone)
        self.parked += 1
        self.state.timers.park(due, lambda: self._again(clone), lambda: self._give_up_parked(clone))

    def _fresh(self, message: Message[Any], attempt: int) -> Message[Any]:
        """A clone of the message, as it was delivered."""
        return message._clone(data=self._decoder.again(message), attempt=attempt)

    def _again(self, message: Message[Any]) -> None:
        self.parked -= 1
        self.queue.retry(message)
        self.idle_workers.wake(1)

    def _give_up_parked(self, message: Message[Any]) -> None:
        self.parked -= 1
        self._give_up(message)

    def _give_up(self, message: Message[Any]) -> None:
        """Leave the message to the next run, and with it the messages that must not overtake it."""
        if self.queue.ordered:
            self.state.stop_at(message)
        self.ack_tracker.abandon([message])
        self._unblock(message)

    def _disposed(self, failures: list[Failure]) -> None:
        for failure in failures:
            self._unblock(failure.message)
        self._settle_size()

    def _unblock(self, message: Message[Any]) -> None:
        if self.queue.unblock(message):
            self.idle_workers.wake(1)

    async def crashed(self, worker: WorkerState, error: BaseException) -> None:
        """The messages that a crashed worker held fail, and go to the policy."""
        self.queue.assign(worker.index)
        failures = []
        for message in worker.unsettled:
            failure = Failure(message, f"the stage crashed: {describe(error)}", error=error)
            failures.append(self._stamp(failure))
        self.release(worker)
        self.queue.release(worker.index)
        self.failure_handler.put(failures, each=self._disposed)


def _the_same(answer: Any, messages: list[Message[Any]]) -> bool:
    """Whether the answer is a list of all these messages, each once."""
    if not isinstance(answer, list) or len(answer) != len(messages):
        return False
    return {id(each) for each in answer} == {id(message) for message in messages}
