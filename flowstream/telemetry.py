"""What happens, as values: event types and the `Observer` protocol.

Hot code knows only this file. An event is made per slice, batch, commit or connection, never per
message. Observers are called synchronously on the event loop and must not block or raise; an
observer that raises is detached after one log record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from flowstream.texts import interrupts, printable, shown

_log = logging.getLogger("flowstream.telemetry")


class Event:
    """The base of every event; rooms define theirs as slotted dataclasses.

    They are values: nobody changes one. (Frozen ones take three times as long to make.)
    """

    __slots__ = ()


class Observer(Protocol):
    """Anything that can be told of events, such as `flowstream.metrics.Metrics`."""

    def observe(self, event: Event, /) -> None: ...


Outcome: TypeAlias = Callable[[Sequence[Any], BaseException | None], None]


class Tracer(Protocol):
    """Draws a span around each slice, batch and publishing: `flowstream.tracing.Tracing` is one."""

    def handling(
        self, pipeline: str, stage: str, messages: Sequence[Any], /
    ) -> AbstractContextManager[Outcome]:
        """Around a stage's handler; gives what is to be told the messages and their error."""

    def publishing(
        self, stream: str, messages: int, /
    ) -> AbstractContextManager[Mapping[str, str]]:
        """Around publishing; gives the application properties that the messages shall carry."""


class Telemetry:
    """Fans events out to observers. `active` is False while nobody listens: test it first.

    `tracer` draws spans; None, which costs nothing, draws none.
    """

    __slots__ = ("_observers", "tracer")

    def __init__(self, *observers: Observer, tracer: Tracer | None = None) -> None:
        self._observers = observers
        self.tracer: Tracer | None = tracer

    @property
    def active(self) -> bool:
        return bool(self._observers)

    def attach(self, observer: Observer) -> None:
        self._observers = (*self._observers, observer)

    def detach(self, observer: Observer) -> None:
        self._observers = tuple(each for each in self._observers if each is not observer)

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


# --- the pipeline -------------------------------------------------------------------------------


@dataclass(slots=True)
class Received(Event):
    """A slice was admitted: `messages` and `bytes` of it, from `stream`."""

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
    the run's `discard`). `latency` is the seconds since they were published, None where the source
    does not tell.
    """

    pipeline: str
    stream: str
    outcome: str
    messages: int
    latency: float | None


@dataclass(slots=True)
class Dropped(Event):
    """Messages left the pipeline unhandled, and why.

    `intentional`: by `message.drop(reason)`, or by the run's `discard` ("discarded on request").
    Otherwise they failed and the policy Drop discarded them; `reason` is `Failed.error` then.
    """

    pipeline: str
    stream: str
    reason: str
    messages: int
    intentional: bool


@dataclass(slots=True)
class Abandoned(Event):
    """Messages were given up unsettled, by a halt or a drain; the next run replays them."""

    pipeline: str
    stream: str
    messages: int


@dataclass(slots=True)
class AttemptFailed(Event):
    """Messages failed an attempt in `phase` ("decode", "process", "batch", "sink", "commit").

    `Retried` and `Failed` tell whether they are tried again. `error` is the exception's class, or
    the reason, with … for numbers and ids, where a handler failed them itself. `reason` is why the
    first of them failed, in words.
    """

    pipeline: str
    stage: str
    phase: str
    error: str
    messages: int
    reason: str


@dataclass(slots=True)
class Failed(Event):
    """Messages failed for good; see `AttemptFailed` for `phase`, `error` and `reason`."""

    pipeline: str
    stage: str
    phase: str
    error: str
    messages: int
    reason: str


@dataclass(slots=True)
class Retried(Event):
    """Messages whose attempt failed were parked, for at most `delay` seconds.

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
    """An offset was sent to be stored (`verified`: and read back)."""

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

    `found` is what is stored, and `expected` what this run stored last, or found when it began
    (None: nothing was stored).
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

    At the start every partition is told of: `seconds` is None then, and whenever one comes. `lost`
    is whether it left with a connection that was lost, and not because the broker gave it away.
    """

    pipeline: str
    super_stream: str
    stream: str
    active: bool
    seconds: float | None
    lost: bool = False


@dataclass(slots=True)
class StageCrashed(Event):
    """A stage broke outside of a handler and was restarted (or gave up)."""

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
    """The event loop did nothing else for `seconds`, because of what `where`, a stack, shows.

    `stage` is the stage or callback that blocked it, "" where that is not known.
    """

    pipeline: str
    stage: str
    seconds: float
    where: str


@dataclass(slots=True)
class Controlled(Event):
    """Somebody (`by`) changed a run: `action` is "pause", "resume", "rate_limit", "resize", "stop"
    or "abort", and `detail` says what was asked for."""

    pipeline: str
    action: str
    detail: str
    by: str


@dataclass(slots=True)
class Warned(Event):
    """A run works, and hardly as it is meant to: `subject` is the option or stream it is about."""

    pipeline: str
    subject: str
    text: str


@dataclass(slots=True)
class PhaseChanged(Event):
    """The run went from one phase to the next (starting, running, paused, draining, stopped)."""

    pipeline: str
    phase: str
    seconds: float


@dataclass(slots=True)
class Halted(Event):
    """The run is being ended by an error: a message under the policy Halt, or something broken.

    `error` is the exception's class, `reason` what it says.
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
    """A connection ended. `cause` is that of errors.ConnectionClosed, `reason` the words."""

    address: str
    role: str
    reason: str
    cause: str


@dataclass(slots=True)
class ChunkReceived(Event):
    """A chunk arrived: `credits` is what the subscription has left at the server, `buffered` the
    bytes of chunks that were not handed over yet."""

    stream: str
    messages: int
    bytes: int
    credits: int
    committed_chunk_id: int | None
    buffered: int


@dataclass(slots=True)
class Overtaken(Event):
    """Retention removed `messages` offsets before a consumer had read them: lost to it."""

    stream: str
    messages: int


@dataclass(slots=True)
class RetentionLooked(Event):
    """A consumer looked where its stream begins: `headroom` offsets before what it reads next.

    Below 0 retention has passed what is settled: what was not read of it is lost.
    """

    stream: str
    headroom: int


@dataclass(slots=True)
class Published(Event):
    stream: str
    messages: int
    bytes: int
    unconfirmed: int


@dataclass(slots=True)
class Confirmed(Event):
    """Confirms (or, with `code` other than 1, refusals) arrived."""

    stream: str
    messages: int
    code: int
    seconds: float
    unconfirmed: int


@dataclass(slots=True)
class StateChanged(Event):
    """An environment, publisher or consumer (`kind`) went from one state to the next.

    `state`: "connecting", "open", "recovering" or "closed"; `reason` says why where nobody asked
    for it; `seconds` is how long the last state held; `environment` is the name of the environment
    it belongs to.
    """

    kind: str
    name: str
    state: str
    reason: str
    seconds: float
    environment: str = ""


@dataclass(slots=True)
class BrokerLost(Event):
    """An environment lost `what` (its broker, a node, or a stream), for `reason`, and tries again.

    One event for all that was lost at about the same time: `waiting` are the publishers and
    consumers that it is missing for ("consumer of orders").
    """

    environment: str
    what: str
    reason: str
    waiting: tuple[str, ...]


@dataclass(slots=True)
class BrokerBack(Event):
    """All that an environment had lost is there again, after `seconds`."""

    environment: str
    what: str
    seconds: float


# --- the process --------------------------------------------------------------------------------


@dataclass(slots=True)
class LoopTurned(Event):
    """The event loop woke a timer `late` seconds after it was due."""

    late: float
