"""One worker of a stage: the messages that it holds, and whether they make progress."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import islice
from operator import length_hint
from types import FrameType
from typing import Any

import anyio

from flowstream.pipeline.handlers.frames import frames_of_threads
from flowstream.pipeline.message import Message
from flowstream.pipeline.slice import Slice
from flowstream.signals import Signal

_NOTHING: Slice[Any] = Slice.of([])


class WorkerState:
    """What one worker is doing. The watchdog reads it; nothing in it is written per message.

    `part` is the slice that it took. It still holds the `messages`, except those whose ids are in
    `skipped`; it is `altered` if they are not the ones that it took. The handler is called with
    those that are `chosen` (None: with all). It is `at_work` while its handler (or the function
    named `callback`) is called; if that has a timeout, `scope` ends it, and `late` is how many
    messages were left when it was ended. It is `queued` while the handler waits for a thread;
    `waited` is how many seconds its calls spent on the way to threads and back.

    `cancel_requests` counts those of its task: after a call of the handler, any makes it look
    whether the run was cancelled.

    `iterator` walks the messages for the handler. Counting them would cost time per message, so
    nothing counts: `length_hint` of the list's iterator is the number of messages left, and the
    message in the handler is the one before those. In a slice of columns it walks positions
    instead: one message object, `lent`, is given to the handler for one position after the other,
    until it is kept or something is decided about it (handlers/lending.py).
    """

    __slots__ = ("_messages", "active", "altered", "at_work", "callback", "cancel_requests",
                 "chosen", "coroutine", "index", "iterator", "late", "lent", "name", "part",
                 "queued", "reported", "scope", "seen", "since", "skipped", "slow", "taken",
                 "thread", "waited", "walked")  # fmt: skip

    def __init__(self, name: str, index: int) -> None:
        self.name: str = name
        self.index: int = index
        self.part: Slice[Any] = _NOTHING
        self._messages: list[Message[Any]] | None = None
        self.skipped: set[int] = set()
        self.chosen: list[Message[Any]] | None = None
        self.walked: list[Message[Any]] = []
        self.iterator: Iterator[Any] = iter(())
        self.lent: Message[Any] | None = None
        self.scope: anyio.CancelScope | None = None
        self.altered: bool = False
        self.at_work: bool = False
        self.callback: str = ""
        self.late: int | None = None
        self.queued: bool = False
        self.active: bool = False
        self.cancel_requests: Callable[[], int] = int
        self.coroutine: Any = None
        self.thread: int | None = None
        self.since: float = 0.0
        self.taken: float = 0.0
        self.waited: float = 0.0
        self.seen: int = 0
        self.reported: bool = False
        self.slow: bool = False

    def hold(self, part: Slice[Any], now: float) -> None:
        """The worker took a slice."""
        self.active = True
        self.part = part
        self._messages = None
        self.altered = False
        self.since = self.taken = now
        self.waited = 0.0
        self.seen = 0
        self.reported = self.slow = False

    @property
    def messages(self) -> list[Message[Any]]:
        """The messages that it still holds."""
        if self._messages is None:
            self._messages = list(self.part.messages)
        return self._messages

    @messages.setter
    def messages(self, messages: list[Message[Any]]) -> None:
        self._messages = messages
        self.altered = True

    @property
    def handed(self) -> list[Message[Any]]:
        """The messages that the handler is called with: the chosen ones, or all."""
        return self.messages if self.chosen is None else self.chosen

    def walk(self, messages: list[Message[Any]]) -> None:
        """Set the messages that the handler is called with, one after the other."""
        self.walked = messages
        self.iterator = iter(messages)
        self.seen = len(messages)
        self.lent = self.late = None

    def lend(self) -> None:
        """The handler is to see all of the slice: where that is in columns, by one object."""
        part = self.part
        count = 0 if self._messages is not None or part.rows else len(part)
        if not count:
            self.walk(self.messages)
            return
        delivery, indexes = part.runs[0]
        raw, data = part.columns
        self.walk([])
        self.lent = Message(delivery, indexes[0], data[0], raw[0])
        self.iterator = iter(range(count))
        self.seen = count

    def keep(self) -> None:
        """Make the messages of the slice, with `lent` as one of them, and continue behind it.

        A thread that was given up may still hold `lent` and set its place once more: to the same
        place, because it finds no other from here on.
        """
        lent, self.lent = self.lent, None
        if lent is None:
            return
        rest = list(self.iterator)
        messages = self.part.messages
        taken = len(messages) - len(rest)
        if taken:
            own = messages[taken - 1]
            lent._delivery, lent._index, lent.raw = own._delivery, own._index, own.raw
            messages[taken - 1] = lent
        late = self.late
        self.walk(self.messages)
        self.late = late
        self.pass_over(taken)

    def pass_over(self, count: int) -> None:
        """The handler has seen the first `count` of them."""
        for _ in islice(self.iterator, count):
            pass

    def cut(self) -> None:
        """Call the handler for no other message, even if it is shielded from cancellation."""
        for _ in self.iterator:
            pass

    def release(self) -> None:
        """The worker no longer holds anything."""
        self.active = self.at_work = False
        self.part = _NOTHING
        self._messages = []
        self.skipped = set()
        self.chosen = None
        self.walk([])
        self.scope = None
        self.callback = ""
        self.thread = None

    @property
    def left(self) -> int:
        """How many messages the handler was not called with yet."""
        return length_hint(self.iterator)

    @property
    def current(self) -> Message[Any] | None:
        """The message in the handler."""
        if self.lent is not None:
            return self.lent if self.left < len(self.part) else None
        taken = len(self.walked) - self.left
        return self.walked[taken - 1] if 0 < taken <= len(self.walked) else None

    @property
    def unsettled(self) -> list[Message[Any]]:
        """The messages that the worker must still settle or pass on."""
        skipped = self.skipped
        return [message for message in self.messages if id(message) not in skipped]

    def elapsed(self, now: float) -> float:
        """Seconds since the handler last took a message, as precise as the watchdog's checks."""
        left = self.left
        if left != self.seen or self.queued:
            self.seen = left
            self.since = now
            self.reported = self.slow = False
        return now - self.since

    def stack(self) -> str:
        """The stack of the handler, without what called it."""
        if self.thread is None:
            frames = [*_await_chain(self.coroutine)]
        elif (frame := frames_of_threads().get(self.thread)) is not None:
            frames = [each for each, _ in traceback.walk_stack(frame)][::-1]
        else:
            return "the thread has ended\n"
        shown = traceback.StackSummary.extract((each, each.f_lineno) for each in _called(frames))
        return "".join(traceback.format_list(shown)) or "nowhere\n"


current_worker: ContextVar[WorkerState | None] = ContextVar("flowstream_slot", default=None)
"""The worker that calls a handler in the current task."""

_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
DEPTH = 64
_OWN = "flowstream."


def _called(frames: list[FrameType]) -> list[FrameType]:
    """What flowstream called, of frames from the outermost on; all if it called nothing else."""
    own = [str(each.f_globals.get("__name__", "")).startswith(_OWN) for each in frames]
    first = own.index(True) if True in own else 0
    after = next((at for at in range(first, len(own)) if not own[at]), 0)
    return frames[after:]


def _await_chain(awaited: Any) -> Iterator[FrameType]:
    for _ in range(DEPTH):
        if awaited is None:
            return
        kind = _kind(awaited)
        if kind is None:  # such as a step of an async generator, which does not name the generator
            awaited = next((each for each in gc.get_referents(awaited) if _kind(each)), None)
            continue
        frame = getattr(awaited, kind[0])
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, kind[1])


def _kind(awaited: Any) -> tuple[str, str] | None:
    """The attributes with the frame of a coroutine or generator, and with what it awaits."""
    return next((kind for kind in _KINDS if hasattr(awaited, kind[0])), None)


class Idle:
    """Workers that wait for messages."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[int, Signal] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, index: int) -> None:
        signal = self._waiting[index] = Signal()
        try:
            await signal.wait()
        finally:
            self._waiting.pop(index, None)

    def wake(self, count: int) -> None:
        """Wake up to `count` workers."""
        for index in list(self._waiting)[:count]:
            self._waiting.pop(index).notify()
