"""Gives a handler the same message object for one message of a slice after the other.

Creating an object for every message costs more than most handlers do. So for a slice in columns one
object is created, and the handler gets it for one message after the other. This is safe while the
handler cannot notice it: after the call nothing outside this file refers to the object, and the
handler made no decision about the message. What the handler assigned to `message.data` is written
back into the column. The object is left to the first message that something still refers to (a
list, a task, the traceback of an exception), or that was failed, dropped, routed or settled. From
there on, the slice has an object for each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import getrefcount
from typing import Any

from flowstream.pipeline.deciders.queues import KeyedQueue, Order
from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.handlers.calls import accept, fail, passes
from flowstream.pipeline.handlers.return_checks import NO_VALUES, discard
from flowstream.pipeline.handlers.threads import Threads
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Message
from flowstream.pipeline.slice import Slice
from flowstream.texts import interrupts

Positions = Iterator[int]
Rows = Iterator[tuple[int, int, Any, bytes]]


async def lend(
    handler: Callable[..., Any], worker: WorkerState, *, threads: Threads | None
) -> Message[Any] | None:
    """Call a handler with the worker's `lent` message, for each message of its iterator.

    A plain function is called in one of the `threads`. Stops at the first message that is still
    referred to, that the handler decided about, or that failed, and returns it.
    """
    lent, part, positions = worker.lent, worker.part, worker.iterator
    assert lent is not None
    if threads is None:
        return await _lend_async(handler, lent, part, positions)
    kept: Message[Any] | None = await threads.run(
        worker.name, worker, _lend_sync, handler, lent, part, positions
    )
    return kept


def _runs(part: Slice[Any], positions: Positions) -> Iterator[tuple[Delivery, Rows]]:
    """Each delivery of a slice with (index, position, data, body) of its messages."""
    raw, data = part.columns
    items, bodies = iter(data), iter(raw)
    for delivery, indexes in part.runs:
        # `indexes` first: zip takes from the others only while it has one.
        yield delivery, zip(indexes, positions, items, bodies, strict=False)


async def _lend_async(
    handler: Callable[..., Any], lent: Message[Any], part: Slice[Any], positions: Positions
) -> Message[Any] | None:
    data = part.columns[1]
    # The number of references while nothing else refers to it. It is counted here, because versions
    # of Python count variables and arguments differently.
    alone = getrefcount(lent)
    try:
        for lent._delivery, rows in _runs(part, positions):
            for lent._index, position, item, lent.raw in rows:
                lent.data = item
                result = await handler(lent)
                if result is not None:
                    accept(lent, result)
                    result = None  # it may be the message
                if lent.data is not item:
                    data[position] = lent.data
                if lent._extra is not None or getrefcount(lent) != alone:
                    return lent
    except BaseException as error:
        if passes(error):
            raise
        fail(lent, error)
        return lent
    return None


def _lend_sync(
    handler: Callable[..., Any], lent: Message[Any], part: Slice[Any], positions: Positions
) -> Message[Any] | None:
    """`_lend_async` for a plain function, in a worker thread."""
    data = part.columns[1]
    alone = getrefcount(lent)
    try:
        for lent._delivery, rows in _runs(part, positions):
            for lent._index, position, item, lent.raw in rows:
                lent.data = item
                result = handler(lent)
                if result is not None:
                    accept(lent, result)
                    result = None
                if lent.data is not item:
                    data[position] = lent.data
                if lent._extra is not None or getrefcount(lent) != alone:
                    return lent
    except BaseException as error:
        if interrupts(error):
            raise
        fail(lent, error)
        return lent
    return None


def lend_for_keys(
    partition_by: Callable[[Message[Any]], Any], part: Slice[Any], queue: KeyedQueue
) -> list[Order] | None:
    """The orders that the messages of a slice in columns are part of, by one message object.

    None if something is special: the function raised, changed a message, or keeps one, or a key is
    not valid. Then the keys are computed again, from an object for each message.
    """
    if not len(part):
        return []
    keys: list[Any] = []
    try:
        if _lend_to(partition_by, part, keys):
            known = queue.known(keys)
            if known is not None:
                return known
            hashes = list(map(hash, keys))
            if len(hashes) == len(keys) and NO_VALUES.isdisjoint(map(type, keys)):
                return queue.orders(keys, hashes)
    except BaseException as error:
        if passes(error):
            raise
    for key in keys:
        discard(key)
    return None


def _lend_to(
    partition_by: Callable[[Message[Any]], Any], part: Slice[Any], keys: list[Any]
) -> bool:
    """Append what a function returns for each message. False if it changed or keeps a message."""
    raw, data = part.columns
    items, bodies = iter(data), iter(raw)
    delivery, indexes = part.runs[0]
    lent = Message(delivery, indexes[0], data[0], raw[0])
    alone = getrefcount(lent)
    for lent._delivery, indexes in part.runs:
        for lent._index, item, lent.raw in zip(indexes, items, bodies, strict=False):
            lent.data = item
            keys.append(partition_by(lent))
            if lent.data is not item:
                return False
    return lent._extra is None and getrefcount(lent) == alone
