"""Lends one message object to a handler, for one message of a slice after the other.

Making an object for every message costs more than most handlers do. So a slice in columns makes
one object, and gives it to the handler for one message after the other. That is safe as long as the
handler cannot notice: nothing but this file refers to the object after the call, and nothing was
decided about the message. The data that the handler leaves goes back into the column. The first
message that is kept (by a list, a task, an exception's traceback), or that was failed, dropped,
routed or settled, keeps the object, and the slice changes to rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import getrefcount
from typing import Any

from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.handlers.calls import accept, fail, passes
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
    """Call a handler, a plain one in `threads`, with the worker's `lent` message for all that its
    iterator walks. Returns the message at the first that was kept, decided about or failed."""
    lent, part, positions = worker.lent, worker.part, worker.iterator
    assert lent is not None
    if threads is None:
        return await _lend_async(handler, lent, part, positions)
    kept: Message[Any] | None = await threads.run(
        worker.name, worker, _lend_sync, handler, lent, part, positions
    )
    return kept


def _runs(part: Slice[Any], positions: Positions) -> Iterator[tuple[Delivery, Rows]]:
    """For each run of a slice its delivery, and (index, position, data, body) of its messages."""
    raw, data = part.columns
    items, bodies = iter(data), iter(raw)
    for delivery, indexes in part.runs:
        # `indexes` first: zip takes from the others only while it has one.
        yield delivery, zip(indexes, positions, items, bodies, strict=False)


async def _lend_async(
    handler: Callable[..., Any], lent: Message[Any], part: Slice[Any], positions: Positions
) -> Message[Any] | None:
    data = part.columns[1]
    # How often it is referred to while nobody else has it: counted here, since what a variable or
    # an argument counts for differs between versions of Python.
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
