"""Runs handlers in worker processes, with `processes=True`: for `def` handlers that compute.

A slice is sent to a process, and its decisions come back, with the data that it has returned or
changed. The handler must be importable by name, and the data picklable. Each decision is pickled
alone, so one that cannot be sent or read fails its own message only. A process that hangs is
killed. If one dies with a slice, the messages are handled again one by one, so that only the
message that kills it fails.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, cast

import anyio

from flowstream.errors import ConfigurationError, HandlerNotImported, WorkerDied
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.repeats import Repeats, more
from flowstream.pipeline.handlers.calls import accept, fail, passes, wrong_return
from flowstream.pipeline.handlers.worker_process import WorkerProcess, main_can_be_run, main_module
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.state.run_state import log
from flowstream.texts import describe, interrupts, is_a, traceback_of, type_name

Handler = Callable[[Any], Any]
UNCHANGEABLE = frozenset({bytes, str, int, float, bool, type(None)})
STARTS = 3
"""How often a process is started that ends before it is ready."""


@dataclass(slots=True)
class Raised:
    """An exception on its way back. It is pickled alone, because unpickling it may fail."""

    name: str
    text: str
    pickled: bytes
    where: str

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        try:
            pickled = pickle.dumps(error)
        except BaseException:
            pickled = b""
        name = type_name(error)
        text = describe(error).removeprefix(name).removeprefix(": ")
        return cls(name, text, pickled, traceback_of(error))

    def error(self) -> BaseException:
        """The exception with its traceback as a note; if it cannot be unpickled, a RuntimeError of
        the same name."""
        try:
            error = pickle.loads(self.pickled)  # noqa: S301 - our own
            error.add_note(f"in a worker process:\n{self.where}")
            if is_a(error, BaseException):
                return cast(BaseException, error)
        except BaseException as broken:
            if interrupts(broken):
                raise
        stand_in: RuntimeError = type(self.name, (RuntimeError,), {})(self.text)
        stand_in.add_note(f"in a worker process:\n{self.where}")
        return stand_in


@dataclass(slots=True)
class Decision:
    """The decision of a handler about one message, sent back to the pipeline."""

    data: Any = None
    changed: bool = False
    reason: str | None = None
    error: Raised | None = None
    retry: bool = True
    dropped: str | None = None
    routed: bool = False
    routes: tuple[str, ...] = ()
    key: Hashable = None
    flush: bool = False
    early: bool = False
    ack: dict[str, Any] | None = None


def check_importable(handler: Handler, path: str) -> None:
    """Raise ConfigurationError if another process could not import the handler."""
    name = name_of(handler)
    if "<" in name or not getattr(handler, "__module__", None):
        raise ConfigurationError(
            f"{path} > processes=True: {name} must be a function at the top level of a module"
        )
    if handler.__module__ == "__main__" and not main_can_be_run(*main_module()):
        raise ConfigurationError(
            f"{path} > processes=True: {name} is declared in an interactive session, which other "
            "processes cannot import; write it into a module"
        )


def name_of(handler: Handler) -> str:
    return str(getattr(handler, "__qualname__", "<unnamed>"))


class Processes:
    """The worker processes of one stage, one for each of its workers."""

    def __init__(self, pipeline: str, stage: str) -> None:
        self._pipeline = pipeline
        self._stage = stage
        self._workers: dict[int, WorkerProcess] = {}
        self._deaths = Repeats()

    async def run(
        self, worker: WorkerState, function: Callable[..., Any], handler: Handler, *args: Any
    ) -> Any:
        """Call a function in the worker's process. A cancellation kills the process.

        Its start does not count towards the timeout of the handler.

        Raises HandlerNotImported if no process can begin, the error of pickling, or WorkerDied if
        the process dies.
        """
        process = self._workers.get(worker.index)
        if process is None or process.ended:
            await self.end(worker.index)
            process = await self._begin(worker, handler)
        request = pickle.dumps((function, (handler, *args)), pickle.HIGHEST_PROTOCOL)
        answered = False
        try:
            result = await process.call(request)
            answered = True
            return result
        except WorkerDied as error:
            self._report(error, args[0])
            raise
        finally:
            if not answered:
                await self.end(worker.index)

    async def end(self, index: int) -> None:
        """End the process of a worker, if it has one."""
        process = self._workers.pop(index, None)
        if process is not None:
            await process.end()

    async def _begin(self, worker: WorkerState, handler: Handler) -> WorkerProcess:
        """Start the worker's process, and let it import the handler.

        A process that ends meanwhile, for example by a signal to its group, has handled nothing,
        so it is started again. No message is at fault where that does not help.
        """
        worker.queued = True
        try:
            request = pickle.dumps((_begin, (handler,)), pickle.HIGHEST_PROTOCOL)
            for tries_left in reversed(range(STARTS)):
                process = self._workers[worker.index] = await WorkerProcess.start(self._stage)
                try:
                    await process.call(request)
                    return process
                except WorkerDied:
                    if not tries_left:
                        raise
        except BaseException as error:
            await self.end(worker.index)
            if passes(error):
                raise
            raise HandlerNotImported(
                f"pipeline {self._pipeline!r} > {self._stage} > processes=True: a worker process "
                f"cannot import {name_of(handler)}: {describe(error)}"
            ) from error
        finally:
            worker.queued = False
            worker.since = anyio.current_time()
        raise AssertionError("unreachable")

    def _report(self, error: WorkerDied, held: list[Message[Any]] | Batch[Any]) -> None:
        left_out = self._deaths.due(error.code, anyio.current_time())
        if left_out is None:
            return
        place: dict[str, Any] = {"stream": None, "offset": None}
        if isinstance(held, Batch):
            what = f"a batch of {held.size:,} in hand: this attempt of it has failed"
        elif len(held) == 1:
            place = {"stream": held[0].stream, "offset": held[0].offset}
            what = f"{held[0].stream}@{held[0].offset} in hand: this attempt of it has failed"
        else:
            what = f"{len(held):,} messages in hand, which are handled again one by one"
        log.warning(
            "pipeline %r: %s. It had %s%s", self._pipeline, error, what, more(left_out),
            extra={"pipeline": self._pipeline, "stage": self._stage, "pid": error.pid, **place},
        )  # fmt: skip


async def process_elsewhere(
    handler: Handler, worker: WorkerState, ordered: bool, *, processes: Processes
) -> Message[Any] | None:
    """`process_async` in a worker process."""
    todo = list(worker.iterator)
    if not todo:
        return None

    async def handle(messages: list[Message[Any]]) -> list[bool]:
        """Handle messages; whether each succeeded."""
        try:
            decisions = await processes.run(worker, _process, handler, messages, ordered)
        except BaseException as error:
            if passes(error):
                raise
            if is_a(error, HandlerNotImported):
                return [
                    fail(message, error) is None for message in messages[: 1 if ordered else None]
                ]
            if len(messages) > 1:
                return await _one_by_one(handle, messages, ordered)
            fail(messages[0], error)
            return [False]
        for message, decision in zip(messages, decisions, strict=False):
            apply(message, decision)
        return [message.failed is None for message in messages[: len(decisions)]]

    handled = await handle(todo)
    worker.walk(todo[len(handled) :])
    return None if handled[-1] else todo[len(handled) - 1]


async def _one_by_one(
    handle: Callable[[list[Message[Any]]], Awaitable[list[bool]]],
    messages: list[Message[Any]],
    ordered: bool,
) -> list[bool]:
    """The process died with the slice, or the slice cannot be sent: find the message at fault."""
    handled: list[bool] = []
    for message in messages:
        handled += await handle([message])
        if ordered and not handled[-1]:
            break
    return handled


async def batch_elsewhere(
    handler: Handler, worker: WorkerState, batch: Batch[Any], processes: Processes
) -> BaseException | None:
    """Call a batch handler in a worker process. Returns the error that fails the batch, or None."""
    try:
        raised, decisions = await processes.run(worker, _batch, handler, batch)
    except BaseException as error:
        if passes(error):
            raise
        return error
    for message, decision in zip(batch.messages, decisions, strict=True):
        apply(message, decision)
    failed: BaseException | None = None if raised is None else raised.error()
    return failed


def apply(message: Message[Any], pickled: bytes) -> None:
    """Apply a decision that was made in a worker process."""
    try:
        _apply(message, pickle.loads(pickled))  # noqa: S301 - our own
    except BaseException as error:
        if interrupts(error):
            raise
        fail(message, error)


def _apply(message: Message[Any], decision: Decision) -> None:
    if decision.changed:
        message.data = decision.data
    if decision.reason is not None:
        error = None if decision.error is None else decision.error.error()
        message._more().failure = Failure(
            message, decision.reason, error=error, retry=decision.retry
        )
    if decision.dropped is not None:
        message.drop(decision.dropped)
    if decision.routed:
        message.to(*decision.routes, key=decision.key, flush=decision.flush)
    if decision.ack:
        message.configure_ack(**decision.ack)
    if decision.early:
        message.settle()


def _begin(handler: Handler) -> None:
    """In the process: nothing to do once it has started and imported the handler."""


def _process(handler: Handler, messages: list[Message[Any]], ordered: bool) -> list[bytes]:
    decisions = []
    for message in messages:
        before, inside = message.data, _inside(message.data)
        try:
            result = handler(message)
            if result is not None:
                accept(message, result)
        except BaseException as error:
            fail(message, error)
        decisions.append(_decided(message, before, inside))
        if ordered and message.failed is not None:
            break
    return decisions


def _batch(handler: Handler, batch: Batch[Any]) -> tuple[Raised | None, list[bytes]]:
    messages = list(batch.messages)
    error: BaseException | None = None
    try:
        error = wrong_return(handler(batch), batch)
    except BaseException as raised:
        error = raised
    decisions = [_decided(message, message.data, None) for message in messages]
    return None if error is None else Raised.of(error), decisions


def _inside(data: Any) -> bytes | None:
    """What shows later whether the handler has changed the data inside; None if nothing does."""
    if type(data) in UNCHANGEABLE:
        return None
    try:
        return pickle.dumps(data)
    except BaseException:
        return None


def _decided(message: Message[Any], before: Any, inside: bytes | None) -> bytes:
    """The decision, pickled; a failure if it cannot be pickled."""
    try:
        return pickle.dumps(_decision(message, before, inside))
    except BaseException as error:
        fail(message, error)
        return pickle.dumps(Decision(reason=describe(error), error=Raised.of(error)))


def _decision(message: Message[Any], before: Any, inside: bytes | None) -> Decision:
    changed = message.data is not before or (
        inside is not None and pickle.dumps(message.data) != inside
    )
    decision = Decision(message.data if changed else None, changed)
    extra = message._extra
    if extra is not None:
        decision.dropped, decision.early, decision.ack = extra.dropped, extra.early, extra.ack
        decision.routed, decision.routes = extra.routed, extra.routes
        decision.key, decision.flush = extra.key, extra.flush
        if extra.failure is not None:
            decision.reason, decision.retry = extra.failure.reason, extra.failure.retry
            error = extra.failure.error
            decision.error = None if error is None else Raised.of(error)
    return decision
