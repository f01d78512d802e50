"""The fields of a handler's log records. Nothing is set per message: they are read when it logs."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from flowstream.pipeline.handlers.worker_state import WorkerState, current_worker

_worker: ContextVar[tuple[str, WorkerState] | None] = ContextVar("flowstream_worker", default=None)


def begin_work(pipeline: str, worker: WorkerState) -> None:
    """The current task, and the threads that it calls handlers in, belong to this worker."""
    _worker.set((pipeline, worker))
    current_worker.set(worker)


def place() -> dict[str, Any]:
    """`pipeline` and `stage` of the current handler, and `stream` and `offset` of its message.

    A batch handler has no single message, so no offset. Outside of handlers there are no fields.
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
    """A logging filter that adds these fields to the records of handlers, and lets all pass.

    handler.addFilter(add_place)
    """
    for name, value in place().items():
        vars(record).setdefault(name, value)
    return True
