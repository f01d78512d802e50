"""Events as values, the `Observer` that receives them, and the `Tracer` that creates spans.

The other rooms import only this file to report what happens. There is an event per slice, batch,
commit or connection, never per message. Observers are called synchronously by the event loop, some
of the client's outside of any task. They must not block or raise; an observer that raises is
detached after one log record.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from flowstream.texts import interrupts, printable, shown

_log = logging.getLogger("flowstream.telemetry")


class Event:
    """The base of every event; rooms define theirs as slotted dataclasses.

    They are values, and must not be changed. (Frozen dataclasses take three times as long to make.)
    """

    __slots__ = ()


class Observer(Protocol):
    """Receives events, as `flowstream.metrics.Metrics` does."""

    def observe(self, event: Event, /) -> None: ...


Outcome: TypeAlias = Callable[[Sequence[Any], BaseException | None], None]


class Tracer(Protocol):
    """Creates a span for each slice, batch and publishing, as `flowstream.tracing.Tracing` does."""

    def handling(
        self, pipeline: str, stage: str, messages: Sequence[Any], /
    ) -> AbstractContextManager[Outcome]:
        """Entered around a handler. Yields a function to call with the messages and their error."""

    def publishing(
        self, stream: str, messages: int, /
    ) -> AbstractContextManager[Mapping[str, str]]:
        """Entered around publishing. Yields the application properties for the messages."""


class Telemetry:
    """Sends events to observers. `active` is False without observers: test it first.

    `tracer` creates spans. None creates none, and costs nothing.
    """

    __slots__ = ("_observers", "active", "tracer")

    def __init__(self, *observers: Observer, tracer: Tracer | None = None) -> None:
        for observer in observers:
            _check(observer)
        self._observers = observers
        self.active: bool = bool(observers)
        self.tracer: Tracer | None = tracer

    def attach(self, observer: Observer) -> None:
        _check(observer)
        self._observers = (*self._observers, observer)
        self.active = True

    def detach(self, observer: Observer) -> None:
        self._observers = tuple(each for each in self._observers if each is not observer)
        self.active = bool(self._observers)

    def emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer.observe(event)
            except BaseException as error:
                if interrupts(error):
                    raise
                self.detach(observer)
                _log.error(
                    "observer %s raised and was detached", shown(observer),
                    exc_info=printable(error),
                )  # fmt: skip


def _check(observer: object) -> None:
    observe = None if isinstance(observer, type) else getattr(observer, "observe", None)
    if not callable(observe) or inspect.iscoroutinefunction(observe):
        raise TypeError(
            f"{shown(observer)} is no observer: expected an object with a method "
            "`observe(event)`, a plain def"
        )


# --- the pipeline -------------------------------------------------------------------------------


@dataclass(slots=True)
class Received(Event):
    """A slice of `stream` was taken in, with so many `messages` and `bytes`."""

    pipeline: str
    stream: str
    messages: int
    bytes: int


@dataclass(slots=True)
class HandlerDone(Event):
    """A processor slice or a batch left its handler.

    `stage` is "processor" or the batcher's name; `seconds` the time in the handler.
    """

    pipeline: str
    stage: str
    messages: int
    failed: int
    seconds: float


@dataclass(slots=True)
class BatchReady(Event):
    """A batch was closed by `trigger` ("size", "bytes", "timeout", "flush", "drain", ...)."""

    pipeline: str
    batcher: str
    messages: int
    trigger: str
    waited: float


@dataclass(slots=True)
class Settled(Event):
    """Messages were settled with one outcome.

    `outcome`: "ok", "dropped", "dead_lettered" or "discarded" (by the policy Drop, or by
    the run's `discard`). `latency` is the seconds since they were published, None if the source
    does not know.
    """

    pipeline: str
    stream: str
    outcome: str
    messages: int
    latency: float | None


@dataclass(slots=True)
class Dropped(Event):
    """Messages left the pipeline without being handled, for `reason`.

    `intentional`: by `message.drop(reason)`, or by the run's `discard` ("discarded on request").
    Otherwise they failed and the policy Drop discarded them; then `reason` is `Failed.error`.
    """

    pipeline: str
    stream: str
    reason: str
    messages: int
    intentional: bool


@dataclass(slots=True)
class Abandoned(Event):
    """A halt or a drain gave messages up without settling them. The next run gets them again."""

    pipeline: str
    stream: str
    messages: int


@dataclass(slots=True)
class AttemptFailed(Event):
    """Messages failed an attempt in `phase`.

    It is "decode", "prepare", "process", "batch", "sink" or "commit". `Retried` or `Failed`
    follows. `error` is the exception's class; after `message.fail` it is the reason that
    was given, with numbers and ids left out. `reason` is the text of the first failure.
    """

    pipeline: str
    stage: str
    phase: str
    error: str
    messages: int
    reason: str


@dataclass(slots=True)
class Failed(Event):
    """Messages finally failed; see `AttemptFailed` for `phase`, `error` and `reason`."""

    pipeline: str
    stage: str
    phase: str
    error: str
    messages: int
    reason: str


@dataclass(slots=True)
class Retried(Event):
    """Failed messages wait for their next attempt, for at most `delay` seconds.

    `phase`, `error` and `reason` are those of `AttemptFailed`.
    """

    pipeline: str
    stage: str
    messages: int
    attempt: int
    delay: float
    error: str
    phase: str = ""
    reason: str = ""


@dataclass(slots=True)
class Committed(Event):
    """An offset was sent to be stored; if `verified`, it was also read back."""

    pipeline: str
    stream: str
    offset: int
    verified: bool


@dataclass(slots=True)
class CommitFailed(Event):
    """An offset could not be stored; it is tried again at the next commit."""

    pipeline: str
    stream: str
    offset: int
    error: str


@dataclass(slots=True)
class OffsetMoved(Event):
    """Something else stored offsets for a stream while this run holds it.

    `found` is the stored offset, and `expected` the one that this run stored last, or found at its
    start (None: no offset was stored).
    """

    pipeline: str
    stream: str
    reference: str
    expected: int | None
    found: int


@dataclass(slots=True)
class Truncated(Event):
    """Retention removed `messages` offsets behind the stored one before they were handled."""

    pipeline: str
    stream: str
    messages: int


@dataclass(slots=True)
class PartitionMoved(Event):
    """A partition came to this process (`active`) or left it, after a drain of `seconds`.

    At the start there is one event for each partition. `seconds` is None if the partition came. It
    is `lost` if it left with a lost connection, and not because the broker moved it.
    """

    pipeline: str
    super_stream: str
    stream: str
    active: bool
    seconds: float | None
    lost: bool = False


@dataclass(slots=True)
class SubscribedAgain(Event):
    """This process subscribed again to all partitions, because the load of its group was uneven."""

    pipeline: str
    super_stream: str


@dataclass(slots=True)
class StageCrashed(Event):
    """A stage crashed outside of a handler; if `restarted`, it continues."""

    pipeline: str
    stage: str
    error: str
    restarted: bool


@dataclass(slots=True)
class HandlerStuck(Event):
    """A handler has not returned for `seconds`; `where` is its stack as text."""

    pipeline: str
    stage: str
    seconds: float
    where: str


@dataclass(slots=True)
class LoopBlocked(Event):
    """Code blocked the event loop for `seconds`; `where` is its stack.

    `stage` is the stage or callback that blocked it, "" if it is not known.
    """

    pipeline: str
    stage: str
    seconds: float
    where: str


@dataclass(slots=True)
class Controlled(Event):
    """A run was controlled by `by`: `action` is "pause", "resume", "rate_limit", "resize", "stop"
    or "abort", and `detail` what was requested."""

    pipeline: str
    action: str
    detail: str
    by: str


@dataclass(slots=True)
class Warned(Event):
    """A run works, but probably not as intended. `subject` is the option or stream at fault."""

    pipeline: str
    subject: str
    text: str


@dataclass(slots=True)
class PhaseChanged(Event):
    """The run entered a phase: starting, running, paused, draining, closing or stopped."""

    pipeline: str
    phase: str
    seconds: float


@dataclass(slots=True)
class Halted(Event):
    """An error ends the run: a message with the policy Halt, or another failure.

    `error` is the exception's class, `reason` its text.
    """

    pipeline: str
    error: str
    reason: str


# --- the client ---------------------------------------------------------------------------------


@dataclass(slots=True)
class ConnectionOpened(Event):
    address: str
    role: str


@dataclass(slots=True)
class ConnectionLost(Event):
    """A connection ended. `cause` is that of errors.ConnectionClosed, `reason` its text."""

    address: str
    role: str
    reason: str
    cause: str


@dataclass(slots=True)
class ChunkReceived(Event):
    """A chunk arrived. `credits` is how many more the server may send, `buffered` the bytes of the
    chunks that wait in the client. `number` is the consumer's: see StateChanged."""

    stream: str
    messages: int
    bytes: int
    credits: int
    committed_chunk_id: int | None
    buffered: int
    number: int = 0


@dataclass(slots=True)
class Overtaken(Event):
    """Retention removed `messages` offsets before a consumer had read them."""

    stream: str
    messages: int


@dataclass(slots=True)
class RetentionLooked(Event):
    """A consumer looked up where its stream begins: `headroom` offsets before its next message.

    Below 0, retention has removed messages that were not read. `reference` is that of the consumer:
    a process may have several of one stream.
    """

    stream: str
    headroom: int
    reference: str = ""


@dataclass(slots=True)
class Published(Event):
    stream: str
    messages: int
    bytes: int
    unconfirmed: int
    number: int = 0


@dataclass(slots=True)
class Confirmed(Event):
    """Confirms (or, with `code` other than 1, refusals) arrived."""

    stream: str
    messages: int
    code: int
    seconds: float
    unconfirmed: int
    number: int = 0


@dataclass(slots=True)
class StateChanged(Event):
    """An environment, publisher or consumer (`kind`) entered a state.

    `state`: "connecting", "open", "recovering" or "closed"; `reason` says why, if it was not
    requested; `seconds` is how long the state before lasted; `environment` is the name of the
    environment it belongs to. `number` is another one for each of them in the process: several may
    read or write one stream.
    """

    kind: str
    name: str
    state: str
    reason: str
    seconds: float
    environment: str = ""
    number: int = 0


@dataclass(slots=True)
class RecoveryFailed(Event):
    """An attempt of an environment, publisher or consumer to connect failed; it goes on trying."""

    kind: str
    name: str
    error: str
    environment: str = ""


@dataclass(slots=True)
class BrokerLost(Event):
    """An environment lost `what` (its broker, a node, or a stream) for `reason`, and reconnects.

    There is one event for all that is lost at about the same time: `waiting` are the publishers
    and consumers that need it ("consumer of orders").
    """

    environment: str
    what: str
    reason: str
    waiting: tuple[str, ...]


@dataclass(slots=True)
class BrokerBack(Event):
    """An environment has reached all that it had lost again, after `seconds`."""

    environment: str
    what: str
    seconds: float


# --- the process --------------------------------------------------------------------------------


@dataclass(slots=True)
class LoopTurned(Event):
    """The event loop woke a timer `late` seconds after it was due."""

    late: float
