"""Why attempts failed: counted by kind, with what became of the messages. Pure and bounded.

Failures are of one kind where stage, phase, exception class and text agree, apart from numbers, ids
and the like: `order 17 unknown` and `order 18 unknown` are `order … unknown`, twice. The text of a
kind keeps what all of its texts have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from flowstream.pipeline.message import Message
from flowstream.texts import (
    LIMIT,
    beginning,
    clipped,
    common,
    describe,
    folded,
    interrupts,
    shown,
)

KINDS = 50
"""How many kinds are counted apart; the others are counted together, under OTHER."""
KINDS_OF_ERROR = 20
"""The same for one stage, phase and exception class, to leave room for others."""
KEPT = 3600.0
"""Seconds after its last failure when a kind may make room for a new one."""
OTHER = "other reasons"
INTERVAL = 60.0
"""Seconds between two lines of the log about one kind."""

TEXT_LIMIT = 300
TRACEBACK_LIMIT = 4096
SAMPLE_LIMIT = 1000

Mask: TypeAlias = Callable[[Message[Any]], Any]
Key: TypeAlias = tuple[str, str, str, str]
"""Stage, phase, exception class and folded text."""

_OTHER_KEY: Key = ("", "", "", OTHER)
_COUNTS = ("attempts", "retried", "dead_lettered", "discarded", "halted")


@dataclass(frozen=True, slots=True)
class Reason:
    """Failures of one kind, and what became of them.

    `stage` and `phase` ("decode", "prepare", "process", "batch", "sink", "commit", "on_failed",
    "crash") say where, `handler` is the function that failed ("" if there is none), `error` the
    exception's class ("" after `message.fail(text)`), `text` its text, with … where the texts
    differ.

    `attempts` are failed attempts of messages. Each was `retried`, `dead_lettered`, `discarded`
    (settled by a policy that keeps no copy) or `halted`, or none of these if the run ended before,
    or what failed is not a message but a commit or a stage. `first` and `last` are seconds since
    1970.

    `stream`, `offset`, `traceback` and `sample` (the beginning of the body, or what the pipeline's
    `mask` shows of it) are those of the first failure, or None.
    """

    stage: str
    phase: str
    error: str
    text: str
    attempts: int
    retried: int
    dead_lettered: int
    discarded: int
    halted: int
    first: float
    last: float
    stream: str | None = None
    offset: int | None = None
    traceback: str | None = None
    sample: str | None = None
    handler: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Reason:
        """From JSON. A process of another version may write more fields, which are ignored."""
        return cls(**{name: values[name] for name in cls.__slots__ if name in values})

    @property
    def label(self) -> str:
        """A short name: the exception's class and the handler, or the handler's own reason."""
        return f"{self.error} in {self.handler or self.stage}" if self.error else self.text


class Kind:
    """A `Reason` that is being counted, and the notices about it."""

    __slots__ = ("_common", "counts", "first", "handler", "key", "last", "merged", "notices",
                 "offset", "sample", "stream", "traceback")  # fmt: skip

    def __init__(self, key: Key, text: str, now: float, handler: str = "") -> None:
        self.key: Key = key
        self._common: str = text
        self.handler: str = handler
        self.counts: dict[str, int] = dict.fromkeys(_COUNTS, 0)
        self.first: float = now
        self.last: float = now
        self.stream: str | None = None
        self.offset: int | None = None
        self.traceback: str | None = None
        self.sample: str | None = None
        self.notices: dict[str, Notice] = {}
        self.merged: Kind | None = None

    @property
    def stage(self) -> str:
        return self.key[0]

    @property
    def phase(self) -> str:
        return self.key[1]

    @property
    def error(self) -> str:
        return self.key[2]

    @property
    def text(self) -> str:
        """What all texts of this kind have in common."""
        return clipped(self._common, TEXT_LIMIT)

    def add(self, text: str) -> None:
        """Add one more text of this kind."""
        if self._common not in (text, self.key[-1]):
            self._common = common(self._common, text)

    @property
    def new(self) -> bool:
        """Whether nothing is counted yet."""
        return not self.counts["attempts"]

    def count(self, what: str, messages: int) -> None:
        """Count failed "attempts", or what became of them."""
        kind = self.merged or self
        kind.counts[what] += messages

    def merge_into(self, other: Kind) -> None:
        """Move the counts to another kind, which counts for this one from now on."""
        for what, messages in self.counts.items():
            other.counts[what] += messages
        other.first, other.last = min(other.first, self.first), max(other.last, self.last)
        self.merged = other

    def reason(self) -> Reason:
        return Reason(
            self.stage, self.phase, self.error, self.text, **self.counts,
            first=self.first, last=self.last, stream=self.stream, offset=self.offset,
            traceback=self.traceback, sample=self.sample, handler=self.handler,
        )  # fmt: skip


class Reasons:
    """The kinds of one run; `handlers` are the names of users' functions, by stage and phase."""

    def __init__(self, handlers: Mapping[tuple[str, str], str]) -> None:
        self._handlers = handlers
        self._kinds: dict[Key, Kind] = {}
        self._other: Kind | None = None

    def of(self, stage: str, phase: str, error: str, text: str, now: float) -> Kind:
        """The kind of a failure: a new one, or a known one."""
        text = beginning(clipped(text, LIMIT))
        key = (stage, phase, error, folded(text))
        kind = self._kinds.get(key)
        if kind is not None:
            kind.add(text)
        elif self._has_room(key, now):
            handler = self._handlers.get((stage, phase), "")
            kind = self._kinds[key] = Kind(key, text, now, handler)
        else:
            kind = self._others(now)
        kind.last = now
        return kind

    def snapshot(self) -> tuple[Reason, ...]:
        """Every kind, the most frequent first, and last all others as one."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.counts["attempts"])
        if self._other is not None:
            kinds.append(self._other)
        return tuple(kind.reason() for kind in kinds)

    def _has_room(self, key: Key, now: float) -> bool:
        """Whether one more kind may be counted apart. An old one makes room for it."""
        kinds = [kind for kind in self._kinds.values() if kind.key[:3] == key[:3]]
        if len(kinds) < KINDS_OF_ERROR:
            if len(self._kinds) < KINDS:
                return True
            kinds = list(self._kinds.values())
        oldest = min(kinds, key=lambda kind: kind.last)
        if now - oldest.last < KEPT:
            return False
        del self._kinds[oldest.key]
        oldest.merge_into(self._others(oldest.first))
        return True

    def _others(self, now: float) -> Kind:
        if self._other is None:
            self._other = Kind(_OTHER_KEY, OTHER, now)
        return self._other


def merged_reasons(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The reasons of several processes, those of one kind together: as `RunResult.reasons`."""
    found: dict[Key, Reason] = {}
    for reason in reasons:
        key = (reason.stage, reason.phase, reason.error, folded(reason.text))
        found[key] = _together(found[key], reason) if key in found else reason
    other = found.pop(_OTHER_KEY, None)
    kinds = sorted(found.values(), key=lambda reason: -reason.attempts)
    for reason in map(_without_kind, kinds[KINDS:]):
        other = reason if other is None else _together(other, reason)
    return (*kinds[:KINDS], *([] if other is None else [other]))


def _together(one: Reason, other: Reason) -> Reason:
    """Both as one; the details are those of the first failure."""
    counts = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    earlier = min(one, other, key=lambda reason: reason.first)
    text = common(one.text, other.text)
    return replace(earlier, **counts, text=text, last=max(one.last, other.last))


def _without_kind(reason: Reason) -> Reason:
    """The counts of a reason, as one of all others."""
    counts = {name: getattr(reason, name) for name in _COUNTS}
    return Reason(*_OTHER_KEY, **counts, first=reason.first, last=reason.last)


class Notice:
    """What is logged of a kind: that it failed, or what became of its messages.

    `said` is when it was logged last, `more` how many were not logged since.
    """

    __slots__ = ("kind", "more", "said", "what")

    def __init__(self, kind: Kind, what: str, now: float) -> None:
        self.kind: Kind = kind
        self.what: str = what
        self.said: float = now
        self.more: int = 0


class Notices:
    """When to log a kind: the first at once, then at most one line a minute with the count."""

    def __init__(self) -> None:
        self._waiting: list[Notice] = []

    def add(self, kind: Kind, what: str, count: int, now: float) -> bool:
        """Count. Returns True for the first, which is logged now; `due` returns the others."""
        notice = kind.notices.get(what)
        first = notice is None
        if notice is None:
            notice = kind.notices[what] = Notice(kind, what, now)
            count -= 1
        if count and not notice.more:
            self._waiting.append(notice)
        notice.more += count
        return first

    @property
    def next(self) -> float | None:
        """When the next line is due."""
        return min((notice.said + INTERVAL for notice in self._waiting), default=None)

    def due(self, now: float) -> list[tuple[Kind, str, int]]:
        """The kinds to log now, each with the count since its last line."""
        lines = [
            (notice.kind, notice.what, notice.more)
            for notice in self._waiting
            if now >= notice.said + INTERVAL
        ]
        for kind, what, _ in lines:
            notice = kind.notices[what]
            notice.said, notice.more = now, 0
        self._waiting = [notice for notice in self._waiting if notice.more]
        return lines


def sample(message: Message[Any], mask: Mask | None) -> str | None:
    """What may be shown of a message's body; None if its pipeline masks all of it."""
    try:
        value = _body(message) if mask is None else mask(message)
    except BaseException as error:
        if interrupts(error):
            raise
        return f"mask raised {describe(error, TEXT_LIMIT)}" if mask is not None else None
    if value is None:
        return None
    if type(value) is bytes:
        value = value[: 4 * SAMPLE_LIMIT].decode("utf-8", "backslashreplace")
    return clipped(value, SAMPLE_LIMIT) if type(value) is str else shown(value, SAMPLE_LIMIT)


def _body(message: Message[Any]) -> Any:
    """The payload's bytes, or the AMQP value or object of a source that is there instead."""
    if not message.raw:
        return message.data
    codec = message._delivery.partition.codec
    return message.raw if codec is None else codec.payload(message.raw)
