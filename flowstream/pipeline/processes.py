"""Handlers in worker processes: for plain functions that compute, by `processes=True`.

A slice goes to a process and its decisions come back. The handler must be importable by name, its
messages' data picklable, and what it changes it must return. A process that hangs is killed. Where
one dies with a slice, its messages are handled again one by one, so that only one of them fails.
"""

from __future__ import annotations

import math
import pickle
import signal
import traceback
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_process

from flowstream.errors import ConfigurationError
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.handlers import accept, fail, passes, reason_of, wrong_return
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.stages.slot import Slot

Handler = Callable[[Any], Any]
KEPT = 60.0
"""Seconds that an idle process is sure to be kept; anyio ends those that were idle for 300."""


@dataclass(slots=True)
class Decision:
    """What a handler decided about one message, on its way back to the pipeline."""

    data: Any = None
    changed: bool = False
    reason: str | None = None
    error: BaseException | None = None
    retry: bool = True
    dropped: str | None = None
    routes: tuple[str, ...] = ()
    key: Hashable = None
    flush: bool = False
    early: bool = False
    ack: dict[str, Any] | None = None


def check_importable(handler: Handler, path: str) -> None:
    """Raise ConfigurationError where another process could not find the handler."""
    name = getattr(handler, "__qualname__", "<unnamed>")
    if "<" in name or not getattr(handler, "__module__", None):
        raise ConfigurationError(
            f"{path} > processes: {name} must be a function at the top level of a module"
        )


class Processes:
    """The worker processes of one stage, as many as it has workers."""

    def __init__(self, most: int) -> None:
        self.limiter = anyio.CapacityLimiter(most)
        self._used: dict[int, float] = {}

    async def run(
        self, slot: Slot, function: Callable[..., Any], handler: Handler, *args: Any
    ) -> Any:
        """Call in a process. It is killed when this is cancelled; its start is no time of the call.

        Raises what cannot be pickled, or BrokenWorkerProcess when the process dies.
        """
        if anyio.current_time() - self._used.pop(slot.index, -math.inf) > KEPT:
            await self._begin(slot, handler)
        result = await anyio.to_process.run_sync(
            function, handler, *args, cancellable=True, limiter=self.limiter
        )
        self._used[slot.index] = anyio.current_time()
        return result

    async def _begin(self, slot: Slot, handler: Handler) -> None:
        """Start a process where none is idle, and let it import the handler."""
        slot.queued = True
        try:
            await anyio.to_process.run_sync(_begin, handler, cancellable=True, limiter=self.limiter)
        finally:
            slot.queued = False
            slot.since = anyio.current_time()


async def process_elsewhere(
    handler: Handler, slot: Slot, rare: list[Message[Any]], ordered: bool, *, processes: Processes
) -> bool:
    """`process_async` in a worker process; True when a failure ended an ordered slice early."""
    todo = list(slot.iterator)
    if not todo:
        return False

    async def decide(messages: list[Message[Any]]) -> list[Decision]:
        try:
            decided: list[Decision] = await processes.run(
                slot, _process, handler, messages, ordered
            )
        except BaseException as error:
            if passes(error):
                raise
            if len(messages) == 1:
                return [Decision(reason=reason_of(error), error=error)]
            return await _one_by_one(decide, messages, ordered)
        return decided

    decisions = await decide(todo)
    for message, decision in zip(todo, decisions, strict=False):
        if apply(message, decision):
            rare.append(message)
    slot.walk(todo[len(decisions) :])
    return ordered and decisions[-1].reason is not None


async def _one_by_one(
    decide: Callable[[list[Message[Any]]], Awaitable[list[Decision]]],
    messages: list[Message[Any]],
    ordered: bool,
) -> list[Decision]:
    """The process died with the slice, or cannot give it back: find the message that does it."""
    decisions: list[Decision] = []
    for message in messages:
        decisions += await decide([message])
        if ordered and decisions[-1].reason is not None:
            break
    return decisions


async def batch_elsewhere(
    handler: Handler, slot: Slot, batch: Batch[Any], processes: Processes
) -> BaseException | None:
    """Call a batch handler in a worker process; the exception that fails the batch, or None."""
    try:
        error, decisions = await processes.run(slot, _batch, handler, batch)
    except BaseException as raised:
        if passes(raised):
            raise
        return raised
    for message, decision in zip(batch.messages, decisions, strict=True):
        decision.changed = False
        apply(message, decision)
    failed: BaseException | None = error
    return failed


def apply(message: Message[Any], decision: Decision) -> bool:
    """Do in the pipeline what was decided elsewhere; True when it is more than new data."""
    if decision.changed:
        message.data = decision.data
    if decision.reason is not None:
        message._more().failure = Failure(
            message, decision.reason, error=decision.error, retry=decision.retry
        )
    if decision.dropped is not None:
        message.drop(decision.dropped)
    if decision.routes or decision.key is not None or decision.flush:
        message.to(*decision.routes, key=decision.key, flush=decision.flush)
    if decision.ack:
        message.configure_ack(**decision.ack)
    if decision.early:
        message.settle()
    return message._extra is not None


def _begin(handler: Handler) -> None:
    """In the process: Ctrl-C at a terminal reaches it too, and is for the pipeline to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _process(handler: Handler, messages: list[Message[Any]], ordered: bool) -> list[Decision]:
    decisions = []
    for message in messages:
        before = message.data
        try:
            result = handler(message)
            if result is not None:
                accept(message, result)
        except BaseException as error:
            fail(message, error)
        decisions.append(_decided(message, before))
        if ordered and decisions[-1].reason is not None:
            break
    return decisions


def _batch(handler: Handler, batch: Batch[Any]) -> tuple[BaseException | None, list[Decision]]:
    messages = list(batch.messages)
    error: BaseException | None = None
    try:
        error = wrong_return(handler(batch), batch)
    except BaseException as raised:
        error = _sendable(raised)
    return error, [_decided(message, message.data) for message in messages]


def _decided(message: Message[Any], before: Any) -> Decision:
    changed = message.data is not before
    decision = Decision(message.data if changed else None, changed)
    extra = message._extra
    if extra is not None:
        decision.dropped, decision.early, decision.ack = extra.dropped, extra.early, extra.ack
        decision.routes, decision.key, decision.flush = extra.routes, extra.key, extra.flush
        if extra.failure is not None:
            decision.reason, decision.retry = extra.failure.reason, extra.failure.retry
            decision.error = _sendable(extra.failure.error)
    return decision


def _sendable(error: BaseException | None) -> BaseException | None:
    """The exception with its traceback as a note, or a stand-in where it cannot be pickled."""
    if error is None:
        return None
    where = "".join(traceback.format_tb(error.__traceback__))
    try:
        copy: BaseException = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        copy = RuntimeError(reason_of(error))
    copy.add_note(f"in a worker process:\n{where}")
    return copy
