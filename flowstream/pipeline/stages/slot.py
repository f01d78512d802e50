"""One worker of a stage: what it has in its hands, and whether that makes progress."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from operator import length_hint
from typing import Any

import anyio

from flowstream.pipeline.message import Message


class Slot:
    """What one worker is doing. The watchdog reads it; nothing in it is written per message.

    `messages` are in its hands, but for those whose ids are `skipped`; `iterator` walks those that
    the handler is to see, and how much is left of it tells which one is in the handler.
    """

    __slots__ = ("active", "coroutine", "index", "iterator", "messages", "name", "reported",
                 "scope", "seen", "since", "skipped", "taken", "thread", "walked")  # fmt: skip

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.messages: list[Message[Any]] = []
        self.skipped: set[int] = set()
        self.walked: list[Message[Any]] = []
        self.iterator: Iterator[Message[Any]] = iter(())
        self.scope: anyio.CancelScope | None = None
        self.active = False
        self.coroutine: Any = None
        self.thread: int | None = None
        self.since = 0.0
        self.taken = 0.0
        self.seen = 0
        self.reported = False

    def hold(self, messages: list[Message[Any]], now: float) -> None:
        """The worker took `messages` into its hands."""
        self.active = True
        self.messages = messages
        self.since = self.taken = now
        self.seen = len(messages)
        self.reported = False
        self.walk(messages)

    def walk(self, messages: list[Message[Any]]) -> None:
        """The handler is to see these, one after the other."""
        self.walked = messages
        self.iterator = iter(messages)

    def release(self) -> None:
        """Its hands are empty."""
        self.active = False
        self.messages = []
        self.skipped = set()
        self.walk([])
        self.scope = None
        self.thread = None

    @property
    def current(self) -> Message[Any] | None:
        """The message in the handler."""
        taken = len(self.walked) - length_hint(self.iterator)
        return self.walked[taken - 1] if 0 < taken <= len(self.walked) else None

    @property
    def unsettled(self) -> list[Message[Any]]:
        """What the worker has to see to: not skipped, nor passed on as failed or dropped."""
        skipped = self.skipped
        return [
            message
            for message in self.messages
            if id(message) not in skipped and (message._extra is None or not message._extra.gone)
        ]

    def elapsed(self, now: float) -> float:
        """The seconds since the handler was last seen to get on, to the watchdog's precision."""
        left = length_hint(self.iterator)
        if left != self.seen:
            self.seen = left
            self.since = now
            self.reported = False
        return now - self.since

    def stack(self) -> str:
        """Where the handler is now."""
        if self.thread is not None:
            frame = sys._current_frames().get(self.thread)
            return "".join(traceback.format_stack(frame)) if frame else "the thread has ended\n"
        return "".join(_await_chain(self.coroutine)) or "nowhere\n"


def _await_chain(coroutine: Any) -> list[str]:
    lines = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        lines.extend(traceback.format_stack(frame, limit=1))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return lines


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
