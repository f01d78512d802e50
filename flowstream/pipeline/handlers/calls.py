"""Calls handlers: on the loop, or in worker threads a slice at a time.

A handler may return a wrong type, raise anything, or be cancelled from within. The result is always
a decision for each message; only a cancellation of the worker itself and a KeyboardInterrupt pass
through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from types import CoroutineType
from typing import Any, NamedTuple, cast

import anyio

from flowstream.errors import StageFailed
from flowstream.pipeline.handlers.return_checks import (
    NO_VALUES,
    UNFINISHED,
    discard,
    hash_of,
    map_all,
)
from flowstream.pipeline.handlers.threads import Threads
from flowstream.pipeline.handlers.worker_state import WorkerState, current_worker
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.slice import LentSlice, Slice
from flowstream.texts import describe, interrupts, is_a, leaves, type_name

_ENDS = (StopIteration, StopAsyncIteration)
"""Exceptions that a coroutine cannot raise: Python turns them into RuntimeError."""


def being_cancelled() -> bool:
    """Whether the current task itself is being cancelled, not something that a handler awaited."""
    return anyio.current_effective_deadline() == -math.inf


def passes(error: BaseException) -> bool:
    """Whether an exception of a handler, or one in its group, must not be caught."""
    if interrupts(error):
        return True
    cancelled = anyio.get_cancelled_exc_class()
    return being_cancelled() and any(is_a(leaf, cancelled) for leaf in leaves(error))


def let_through(error: BaseException) -> None:
    """At the end of a task: raise the exception if it must not be caught.

    A KeyboardInterrupt is raised in a group. Alone it would end asyncio's event loop at once,
    before the run has drained; `Pipeline.start` takes it out of its group again.
    """
    if is_a(error, KeyboardInterrupt):
        raise BaseExceptionGroup("interrupted", [error])
    if passes(error):
        raise error


@contextmanager
def interrupt_alone() -> Iterator[None]:
    """Take a KeyboardInterrupt that leaves the block out of its group."""
    try:
        yield
    except BaseExceptionGroup as group:
        if interrupts(group):
            raise KeyboardInterrupt from group
        raise


def as_exception(what: str, error: BaseException) -> Exception:
    """The error that ends a run after a permanent failure; SystemExit and the like are wrapped."""
    if is_a(error, Exception):
        return cast(Exception, error)
    failed = StageFailed(f"{what}: {describe(error)}")
    failed.__cause__ = error
    return failed


def fail(message: Message[Any], error: BaseException) -> Failure:
    failure = message._more().failure = Failure(message, describe(error), error=error)
    return failure


def accept(message: Message[Any], result: Any) -> None:
    """Make what a processor returned the message's data; fail the message if that is no data."""
    if isinstance(result, Message):
        if result is not message:
            fail(message, TypeError("the handler returned another message; return data or nothing"))
    elif isinstance(result, UNFINISHED):
        discard(result)
        text = f"the handler returned a {type_name(result)}, not awaited"
        if type(result) is CoroutineType:
            text += "; a decorator of an async def must be an async def, too"
        fail(message, TypeError(text))
    else:
        message.data = result


async def process_async(
    handler: Callable[[Message[Any]], Coroutine[Any, Any, Any]],
    messages: Iterator[Message[Any]],
    ordered: bool,
) -> Message[Any] | None:
    """Handle messages until one raises, or fails in an ordered stage, or there are no more.

    Returns the message that failed, or None. The iterator continues behind it.
    """
    message: Message[Any] | None = None
    try:
        for message in messages:
            result = await handler(message)
            if result is not None:
                accept(message, result)
            if ordered and message._extra is not None and message._extra.failure is not None:
                return message
    except BaseException as error:
        if message is None or passes(error):
            raise
        fail(message, error)
        return message
    return None


def process_sync(
    handler: Callable[[Message[Any]], Any], messages: Iterator[Message[Any]], ordered: bool
) -> Message[Any] | None:
    """`process_async` for a plain function, in a worker thread."""
    for message in messages:
        try:
            result = handler(message)
            if result is not None:
                accept(message, result)
        except BaseException as error:
            if interrupts(error):
                raise
            fail(message, error)
        if ordered and message._extra is not None and message._extra.failure is not None:
            return message
    return None


async def handle_slice(
    handler: Callable[[Any], Any], part: Slice[Any], worker: WorkerState, *, threads: Threads | None
) -> BaseException | None:
    """Call a handler of slices (a plain `def` in `threads`), and take the data that it returns.

    Returns the error that fails the slice, or None.
    """
    lent: LentSlice[Any] = LentSlice(part)
    try:
        if threads is None:
            return take_data(part, lent, await handler(lent))
        answer, error = await threads.run(worker.name, worker, _caught, handler, (lent,))
        return take_data(part, lent, answer) if error is None else error
    except BaseException as raised:
        if passes(raised):
            raise
        return raised
    finally:
        lent.end()


def take_data(part: Slice[Any], lent: LentSlice[Any], answer: Any) -> TypeError | None:
    """Give messages the data that their handler returned, in the order that it left in `lent`.

    Returns the error if the data does not fit.
    """
    if answer is None or answer is lent:
        return None
    if not isinstance(answer, list | tuple):
        discard(answer)
        return TypeError(
            f"the handler of slices returned {type_name(answer)}; it returns a list of new data, "
            "such as `array.tolist()`, or nothing"
        )
    if wrong := NO_VALUES.intersection(map(type, answer)):
        for item in answer:
            discard(item)
        (kind, *_) = sorted(it.__name__ for it in wrong)
        what = "messages" if kind == Message.__name__ else f"a {kind}, not awaited, as data"
        return TypeError(
            f"the handler of slices returned {what}; it returns a list of new data, or nothing"
        )
    if not len(answer) == len(part) == len(lent):
        changed = f", and left {len(lent)} of them in its slice" if len(lent) != len(part) else ""
        return TypeError(
            f"the handler of slices returned {len(answer)} items of data for {len(part)} "
            f"messages{changed}; to filter a message out, call drop(index)"
        )
    (lent if lent.rows else part).replace(list(answer))
    return None


class Keyed(NamedTuple):
    """Messages with their partition keys and hashes, and the failures of the others."""

    messages: list[Message[Any]]
    keys: list[Any]
    hashes: list[int]
    failures: list[Failure]


def keyed(partition_by: Callable[[Message[Any]], Any], messages: list[Message[Any]]) -> Keyed:
    """Compute the partition key of each message. A message without a valid key fails alone."""
    keys, bad = map_all(partition_by, messages)
    unfit = not NO_VALUES.isdisjoint(map(type, keys))
    hashes, unhashable = map_all(hash_of if unfit else hash, keys)
    wrong = dict([*unhashable, *bad])
    if not wrong:
        return Keyed(messages, keys, hashes, [])
    failures: list[Failure] = []
    for index, error in sorted(wrong.items()):
        if passes(error):
            raise error
        reason = f"partition_by raised {describe(error)}"
        failures.append(Failure(messages[index], reason, error=error))
    good = [index for index in range(len(messages)) if index not in wrong]
    return Keyed(
        [messages[index] for index in good],
        [keys[index] for index in good],
        [hashes[index] for index in good],
        failures,
    )


def thread_handler(
    function: Callable[..., Any], name: str, threads: Threads
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A plain function as an async one that runs it in a worker thread."""

    async def call(*args: Any) -> Any:
        worker = current_worker.get() or WorkerState(name, 0)
        result, error = await threads.run(name, worker, _caught, function, args)
        if error is None:
            return result
        if is_a(error, Exception) and not any(is_a(error, kind) for kind in _ENDS):
            raise error
        raise RuntimeError(describe(error)) from error

    return call


def _caught(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Any, BaseException | None]:
    try:
        return function(*args), None
    except BaseException as error:
        if interrupts(error):
            raise
        return None, error


async def handle_batch(
    handler: Callable[[Any], Any], batch: Any, worker: WorkerState, *, threads: Threads | None
) -> BaseException | None:
    """Call a batch handler (a plain `def` in `threads`). Returns the error that fails the batch."""
    try:
        if threads is None:
            answer = handler(batch)
            if not isawaitable(answer):
                return TypeError("what a sink writes batches with must be an async def")
            return wrong_return(await answer, batch)
        answer, error = await threads.run(worker.name, worker, _caught, handler, (batch,))
        return wrong_return(answer, batch) if error is None else error
    except BaseException as raised:
        if passes(raised):
            raise
        return raised


def wrong_return(result: Any, batch: Any) -> TypeError | None:
    """The error for a return value that a batch handler must not return, or None."""
    if result is None or result is batch:
        return None
    discard(result)
    return TypeError(
        f"the batch handler returned {type_name(result)}; it returns nothing, and fails "
        f"messages by message.fail() or by raising"
    )
