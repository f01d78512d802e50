"""One worker of a stage: what it has in its hands, and whether that makes progress."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from operator import length_hint
from typing import Any

import anyio

from flowstream.pipeline.message import Message


class WorkerState:
    """What one worker is doing. The watchdog reads it; nothing in it is written per message.

    `messages` are in its hands, but for those whose ids are `skipped`; `iterator` walks those that
    the handler is to see, and how much is left of it tells which one is in the handler. `scope` is
    there while the handler is called (or the `callback` named so), and `late` the message it was
    cancelled for; `queued` while the handler waits for a thread.
    """

    __slots__ = ("active", "callback", "coroutine", "index", "iterator", "late", "messages", "name",
                 "queued", "reported", "scope", "seen", "since", "skipped", "slow", "taken",
                 "thread", "walked")  # fmt: skip

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.messages: list[Message[Any]] = []
        self.skipped: set[int] = set()
        self.walked: list[Message[Any]] = []
        self.iterator: Iterator[Message[Any]] = iter(())
        self.scope: anyio.CancelScope | None = None
        self.callback = ""
        self.late: Message[Any] | None = None
        self.queued = False
        self.active = False
        self.coroutine: Any = None
        self.thread: int | None = None
        self.since = 0.0
        self.taken = 0.0
        self.seen = 0
        self.reported = self.slow = False

    def hold(self, messages: list[Message[Any]], now: float) -> None:
        """The worker took `messages` into its hands."""
        self.active = True
        self.messages = messages
        self.since = self.taken = now
        self.seen = len(messages)
        self.reported = self.slow = False
        self.walk(messages)

    def walk(self, messages: list[Message[Any]]) -> None:
        """The handler is to see these, one after the other."""
        self.walked = messages
        self.iterator = iter(messages)

    def cut(self) -> None:
        """The handler is to see no more of them: it may be shielded from being cancelled."""
        for _ in self.iterator:
            pass

    def release(self) -> None:
        """Its hands are empty."""
        self.active = False
        self.messages = []
        self.skipped = set()
        self.walk([])
        self.scope = None
        self.callback = ""
        self.late = None
        self.thread = None

    @property
    def left(self) -> int:
        """How many messages the handler is still to see."""
        return length_hint(self.iterator)

    @property
    def current(self) -> Message[Any] | None:
        """The message in the handler."""
        taken = len(self.walked) - self.left
        return self.walked[taken - 1] if 0 < taken <= len(self.walked) else None

    @property
    def unsettled(self) -> list[Message[Any]]:
        """What the worker has to see to: neither skipped nor passed on."""
        skipped = self.skipped
        return [message for message in self.messages if id(message) not in skipped]

    def elapsed(self, now: float) -> float:
        """The seconds since the handler was last seen to get on, to the watchdog's precision."""
        left = self.left
        if left != self.seen or self.queued:
            self.seen = left
            self.since = now
            self.reported = self.slow = False
        return now - self.since

    def stack(self) -> str:
        """Where the handler is now."""
        if self.thread is not None:
            frame = sys._current_frames().get(self.thread)
            return "".join(traceback.format_stack(frame)) if frame else "the thread has ended\n"
        return "".join(_await_chain(self.coroutine)) or "nowhere\n"


current_worker: ContextVar[WorkerState | None] = ContextVar("flowstream_slot", default=None)
"""Whoever calls a handler in the current task."""

_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
DEPTH = 64


def _await_chain(awaited: Any) -> list[str]:
    lines: list[str] = []
    while awaited is not None and len(lines) < DEPTH:
        kind = _kind(awaited)
        if kind is None:  # such as a step of an async generator, which does not tell of which
            awaited = next((each for each in gc.get_referents(awaited) if _kind(each)), None)
            continue
        frame = getattr(awaited, kind[0])
        if frame is None:
            break
        lines.extend(traceback.format_stack(frame, limit=1))
        awaited = getattr(awaited, kind[1])
    return lines


def _kind(awaited: Any) -> tuple[str, str] | None:
    """The attributes of a coroutine, generator or async generator for its frame and its next."""
    return next((kind for kind in _KINDS if hasattr(awaited, kind[0])), None)


class Idle:
    """Workers that wait for something to do."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: dict[int, anyio.Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    async def wait(self, index: int) -> None:
        event = self._events[index] = anyio.Event()
        try:
            await event.wait()
        finally:
            self._events.pop(index, None)

    def wake(self, count: int) -> None:
        """Wake up to `count` workers."""
        for index in list(self._events)[:count]:
            self._events.pop(index).set()

    def wake_one(self, index: int) -> None:
        event = self._events.pop(index, None)
        if event is not None:
            event.set()
