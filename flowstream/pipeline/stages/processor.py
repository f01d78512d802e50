"""The processors: workers that take slices, run the handler over them, and hand on what is well.

Order: with partition_by (or one worker) a message that failed holds back those of its key until
it is settled, so no handler ever sees them in another order. Without order nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from flowstream.errors import HandlerTimeout
from flowstream.pipeline.deciders.dispatch import SliceSizer
from flowstream.pipeline.deciders.queues import Queues
from flowstream.pipeline.handlers.calls import (
    fail,
    passes,
    process_async,
    process_sync,
)
from flowstream.pipeline.handlers.pool import Pool
from flowstream.pipeline.handlers.processes import process_elsewhere
from flowstream.pipeline.handlers.return_checks import discard, hash_of
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Extra, Failure, Message
from flowstream.pipeline.options import ProcessorOptions
from flowstream.pipeline.policies import Retry
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState
from flowstream.telemetry import HandlerDone, Retried
from flowstream.texts import describe

Runner = Callable[..., Any]


class Processors(Pool):
    """The processor stage. `forward(messages, plain)` gets what was processed, in order."""

    def __init__(
        self,
        state: RunState,
        options: ProcessorOptions,
        ack_tracker: AckTracker,
        failure_handler: FailureHandler,
        *,
        handler: Runner,
        is_async: bool,
        prepare: Callable[[list[Message[Any]]], Any] | None,
        partition_by: Callable[[Message[Any]], Any] | None,
        retry: Retry | None,
        redecode: Callable[[Message[Any]], Any],
    ) -> None:
        super().__init__(state, options, "processor", options.timeout)
        self.ack_tracker = ack_tracker
        self.failure_handler = failure_handler
        self.forward: Callable[[list[Message[Any]], bool], Any] = _unset
        self.parked = 0
        one_by_one = options.processes and options.timeout is not None
        self.sizer = SliceSizer(1 if one_by_one else options.max_demand)
        self.queues = Queues(options.concurrency, partitioned=partition_by is not None)
        self._handler = handler
        self._is_async = is_async
        self._prepare = prepare
        self._partition_by = partition_by
        self._retry = retry
        self._redecode = redecode
        self._resizing: int | None = None
        self._held_back: list[Message[Any]] = []

    # -- in

    def put(self, messages: list[Message[Any]]) -> None:
        """Queue messages for the workers, in their order."""
        if self._partition_by is not None:
            messages = self._keyed(messages)
        if self._resizing is not None:
            self._held_back.extend(messages)
            return
        partitions = self.queues.put(messages)
        if self.queues.partitioned:
            for partition in partitions:
                self.idle_workers.wake_one(partition)
        else:
            self.idle_workers.wake(len(messages))

    def _keyed(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Give every message its partition key; those for which that fails are failures."""
        key = self._partition_by
        assert key is not None
        wrong: list[Failure] = []
        for message in messages:
            try:
                message._hash = hash_of(key(message))
            except BaseException as error:
                if passes(error):
                    raise
                failure = Failure(message, f"partition_by raised {describe(error)}", error=error)
                wrong.append(self._stamp(failure))
        if not wrong:
            return messages
        self.failure_handler.put(wrong)
        bad = {id(failure.message) for failure in wrong}
        return [message for message in messages if id(message) not in bad]

    @property
    def waiting(self) -> int:
        return self.queues.waiting + len(self._held_back)

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.parked or self.busy)

    def resize(self, workers: int) -> None:
        """Change the number of workers; with partitions once everything taken in is through."""
        self._resizing = workers
        self._settle_size()

    def _settle_size(self) -> None:
        """Change over to the asked number of workers as soon as order allows it."""
        if self._resizing is None:
            return
        ordered = self.queues.ordered or self._resizing == 1
        if ordered and (self.queues.waiting or self.parked or self.busy or self.queues.blocked):
            return
        workers, self._resizing = self._resizing, None
        self.queues.resize(workers)
        self.set_workers(workers)
        held, self._held_back = self._held_back, []
        if held:
            self.put(held)

    # -- work

    async def work(self, worker: WorkerState) -> None:
        while worker.index < self.concurrency:
            mine = self.queues.of(worker.index)
            idle = 1 if self.queues.partitioned else len(self.idle_workers) + 1
            messages = self.queues.take(worker.index, self.sizer.size(len(mine), idle))
            if not messages:
                self.rest()
                await self.idle_workers.wait(worker.index)
                continue
            if self.state.halts:
                messages, held = self.state.split_at_halt(messages)
                self.ack_tracker.hold(held)
                if not messages:
                    self._settle_size()
                    continue
            worker.hold(messages, self.state.clock())
            await self._slice(worker)
            self.release(worker)
            self._settle_size()
            await anyio.lowlevel.checkpoint()

    async def _slice(self, worker: WorkerState) -> None:
        state, messages, started = self.state, worker.messages, worker.since
        flagged: list[Message[Any]] = []
        if self.queues.blocked:
            self._skip_blocked(worker)
        with state.handling(self.name, messages) as tell:
            if self._prepare is None or await self._prepared(worker, flagged):
                await self._run(worker, flagged)
            tell(worker.messages, None)
        seconds = state.clock() - started
        handled = len(worker.messages) - len(worker.skipped)
        if handled:
            self.sizer.learn(handled, seconds)
        self.handled += handled
        self.seconds += seconds
        failed = 0
        if flagged or worker.skipped:
            failed = await self._pass_on(worker, flagged)
        else:
            await self.forward(messages, True)
            worker.messages = []
        if state.telemetry.active:
            state.emit(HandlerDone(state.name, self.name, handled, failed, seconds))

    async def _run(self, worker: WorkerState, flagged: list[Message[Any]]) -> None:
        """Run the handler over the worker's messages; come back to it after every failure."""
        queues = self.queues
        going = True
        while going and worker.left:
            found: list[Message[Any]] = []
            arguments = (self._handler, worker.iterator, found, queues.ordered)
            with anyio.CancelScope() as worker.scope:
                if self.options.processes:
                    going = await process_elsewhere(
                        self._handler, worker, found, queues.ordered, processes=self.processes
                    )
                elif self._is_async:
                    going = await process_async(*arguments)
                else:
                    threads = self.state.threads
                    going = await threads.run(self.name, worker, process_sync, *arguments)
            await anyio.lowlevel.checkpoint_if_cancelled()  # the run was cut off: nothing counts
            if worker.scope.cancelled_caught:
                found = self._timed_out(worker, found)
                going = True
            worker.scope = None
            if going and queues.ordered and found:
                queues.block(found[-1])
                self._skip_blocked(worker)
            flagged.extend(found)

    def _skip_blocked(self, worker: WorkerState) -> None:
        """Leave out what has to wait behind a failed message of its key."""
        todo = []
        for message in worker.iterator:
            if self.queues.hold_back(message):
                worker.skipped.add(id(message))
            else:
                todo.append(message)
        worker.walk(todo)

    def _timed_out(self, worker: WorkerState, found: list[Message[Any]]) -> list[Message[Any]]:
        """The handler took too long for its current message, which fails; go on behind it."""
        found, rest = list(found), list(worker.iterator)
        taken = len(worker.walked) - len(rest)
        current = worker.walked[taken - 1] if taken else None
        worker.walk(rest)
        if current is None or current in found:
            return found
        if current is not worker.late:
            self._begin_again(worker, current)
            return found
        error = HandlerTimeout(f"{self.name} took longer than {self.timeout:g} s")
        if not (self._is_async or self.options.processes):
            current = self._replace(worker, current)
        fail(current, error)
        found.append(current)
        return found

    def _begin_again(self, worker: WorkerState, message: Message[Any]) -> None:
        """The message came into the handler after the late one: it is not to blame."""
        twin = self._twin(message, 0)
        worker.messages = [m for m in worker.messages if m is not message]
        if self.queues.ordered:
            self.queues.block(twin)
            self._skip_blocked(worker)
        self._front([twin])

    def _replace(self, worker: WorkerState, message: Message[Any]) -> Message[Any]:
        """Leave the message to the thread that hangs with it; go on with a copy."""
        twin = self._twin(message, 0)
        worker.messages = [twin if m is message else m for m in worker.messages]
        return twin

    async def _prepared(self, worker: WorkerState, flagged: list[Message[Any]]) -> bool:
        """Run the prepare handler; when it fails, the slice does (in order: the first of a key)."""
        assert self._prepare is not None
        messages = worker.walked
        worker.callback = "prepare"
        try:
            with anyio.CancelScope() as worker.scope:
                answer = await self._prepare(list(messages))
            if worker.scope.cancelled_caught:
                raise HandlerTimeout(f"prepare took longer than {self.timeout:g} s")
            if answer is None or _the_same(answer, messages):
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
            worker.callback, worker.scope = "", None
        for message in messages:
            if self.queues.ordered and self.queues.hold_back(message):
                worker.skipped.add(id(message))
                continue
            fail(message, error)
            flagged.append(message)
            if self.queues.ordered:
                self.queues.block(message)
        return False

    # -- out

    async def _pass_on(self, worker: WorkerState, flagged: list[Message[Any]]) -> int:
        """Part a slice by what became of its messages; returns how many failed."""
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
                extra.attempt = 1
                succeeded.append(message)
        self._failed(failures)
        worker.messages = dropped + succeeded
        if dropped:
            await self.ack_tracker.settle(dropped, "dropped")
            worker.messages = succeeded
        if succeeded:
            await self.forward(succeeded, False)
            worker.messages = []
        if self.queues.blocked:
            for message in (*succeeded, *dropped):
                self._unblock(message)
        return len(failures)

    def _stamp(self, failure: Failure) -> Failure:
        failure.phase, failure.stage = "process", self.name
        failure.attempts = failure.message.attempt
        return failure

    def _failed(self, failures: list[Failure]) -> None:
        self.failed += len(failures)
        self.state.failures.attempted(failures)
        final: list[Failure] = []
        parked: dict[tuple[str, int], list[Failure]] = {}
        longest = 0.0
        for failure in failures:
            delay = None
            if failure.retry and self._retry is not None:
                delay = self._retry.delay(failure.attempts)
            due = self.state.clock() + (delay or 0)
            if delay is None:
                final.append(failure)
            elif due > self.state.deadline:
                self._give_up(failure.message)
            elif self._park(failure, due):
                parked.setdefault((failure.kind, failure.attempts), []).append(failure)
                longest = max(longest, delay)
            else:
                final.append(failure)
        for group in parked.values():
            self._tell_retried(group, longest)
        self.failure_handler.put(final, self._disposed)

    def _tell_retried(self, failures: list[Failure], delay: float) -> None:
        state, first = self.state, failures[0]
        state.failures.retried(failures)
        if state.telemetry.active:
            state.emit(
                Retried(
                    state.name, self.name, len(failures), first.attempts, delay, first.kind,
                    first.phase, first.reason,
                )
            )  # fmt: skip

    def _park(self, failure: Failure, due: float) -> bool:
        """Try the message again later, as it was when it was delivered.

        False where its body does not decode a second time.
        """
        state = self.state
        try:
            twin = self._twin(failure.message, 1)
        except BaseException as error:
            if passes(error):
                raise
            failure.reason += f" (and decoding it again: {describe(error)})"
            return False
        blocked = self.queues.blocked.get(self.queues._key(failure.message))
        if blocked is not None and blocked.holder is failure.message:
            blocked.holder = twin
        self.parked += 1
        self.retried += 1
        state.retried += 1
        state.park(due, lambda: self._again(twin), lambda: self._give_up_parked(twin))
        return True

    def _twin(self, message: Message[Any], tries: int) -> Message[Any]:
        twin: Message[Any] = Message(
            message._delivery, message._index, self._redecode(message), message.raw
        )
        if self.queues.partitioned:
            twin._hash = message._hash
        twin._extra = Extra()
        twin._extra.attempt = message.attempt + tries
        if message._extra is not None:
            twin._extra.early, twin._extra.ack = message._extra.early, message._extra.ack
        return twin

    def _again(self, message: Message[Any]) -> None:
        self.parked -= 1
        self._front([message])

    def _give_up_parked(self, message: Message[Any]) -> None:
        self.parked -= 1
        self._give_up(message)

    def _give_up(self, message: Message[Any]) -> None:
        """Leave the message to the next run, and with it what must not overtake it."""
        if self.queues.ordered:
            self.state.stop_at(message)
        self.ack_tracker.hold([message])
        self._unblock(message)

    def _front(self, messages: list[Message[Any]]) -> None:
        partition = self.queues.put_front(messages)
        if self.queues.partitioned:
            self.idle_workers.wake_one(partition)
        else:
            self.idle_workers.wake(len(messages))

    def _disposed(self, failures: list[Failure]) -> None:
        for failure in failures:
            self._unblock(failure.message)
        self._settle_size()

    def _unblock(self, message: Message[Any]) -> None:
        behind = self.queues.unblock(message)
        if behind:
            self._front(behind)

    async def crashed(self, worker: WorkerState, error: BaseException) -> None:
        """What a broken worker had in its hands fails, and goes to the policy."""
        failures = []
        for message in worker.unsettled:
            failure = Failure(message, f"the stage crashed: {describe(error)}", error=error)
            failures.append(self._stamp(failure))
        self.release(worker)
        self.failure_handler.put(failures, self._disposed)


def _the_same(answer: Any, messages: list[Message[Any]]) -> bool:
    """Is the answer a list of all these messages, each once?"""
    if not isinstance(answer, list) or len(answer) != len(messages):
        return False
    return {id(each) for each in answer} == {id(message) for message in messages}


async def _unset(messages: list[Message[Any]], plain: bool) -> None:
    raise AssertionError("the processors lead nowhere")
