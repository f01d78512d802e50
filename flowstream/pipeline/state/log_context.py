"""Where a handler is, for its log records: nothing is written per message, and all is read late."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from flowstream.pipeline.handlers.worker_state import WorkerState, current_worker

_worker: ContextVar[tuple[str, WorkerState] | None] = ContextVar("flowstream_worker", default=None)


def begin_work(pipeline: str, worker: WorkerState) -> None:
    """From now on the current task, and the threads it calls handlers in, are this worker."""
    _worker.set((pipeline, worker))
    current_worker.set(worker)


def place() -> dict[str, Any]:
    """`pipeline` and `stage` of the current handler, and `stream` and `offset` of its message.

    A batch handler has many messages, and no offset then; outside of handlers there is nothing.
    """
    current = _worker.get()
    if current is None:
        return {}
    pipeline, worker = current
    found: dict[str, Any] = {"pipeline": pipeline, "stage": worker.name}
    message = worker.current
    if message is not None:
        found |= {"stream": message.stream, "offset": message.offset}
    return found


def add_place(record: logging.LogRecord) -> bool:
    """A logging filter that gives records of handlers their place, and lets all of them pass.

    handler.addFilter(add_place)
    """
    for name, value in place().items():
        vars(record).setdefault(name, value)
    return True
