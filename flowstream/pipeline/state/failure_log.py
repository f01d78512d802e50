"""Counts what fails in a run by its reason, logs it, and emits events: once for each failure."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowstream.pipeline.message import Failure
from flowstream.pipeline.state.reasons import (
    TRACEBACK_LIMIT,
    Kind,
    Mask,
    Notices,
    Reason,
    Reasons,
    sample,
)
from flowstream.pipeline.state.timers import Timers
from flowstream.telemetry import AttemptFailed, Telemetry
from flowstream.texts import describe, traceback_of, type_name

# Records have their whole text as message, not a template with arguments: what groups records by
# their templates, as filters of repeats do, must not take one reason for another.
_log = logging.getLogger("flowstream.pipeline")

FAILED = "failed"
_OUTCOMES = {
    "dead_lettered": ("dead_lettered", "dead-lettered"),
    "discarded": ("discarded", "discarded"),
    "dropped": ("discarded", "dropped"),
    "ok": ("discarded", "accepted as handled"),
}
"""How the outcomes of a policy are counted and named."""


class FailureLog:
    """The failures of one run. Everything here is called per slice or batch, on the event loop."""

    def __init__(
        self,
        pipeline: str,
        telemetry: Telemetry,
        clock: Callable[[], float],
        *,
        timers: Timers,
        mask: Mask | None,
        handlers: Mapping[tuple[str, str], str],
    ) -> None:
        self.attempts: int = 0
        self.of_stage: Counter[tuple[str, str]] = Counter()
        """The failed attempts by stage and phase, also those that failed by a key or a route."""
        self._pipeline = pipeline
        self._telemetry = telemetry
        self._clock = clock
        self._timers = timers
        self._mask = mask
        self._reasons = Reasons(handlers)
        self._notices = Notices()
        self._armed = False

    # -- counting

    def attempted(self, failures: Sequence[Failure]) -> None:
        """Messages failed an attempt. Those that were counted before are ignored."""
        now = time.time()
        groups: dict[Kind, list[Failure]] = {}
        for failure in failures:
            if failure._kind is None:
                self.of_stage[failure.stage, failure.phase] += 1
                where = failure.stage, failure.phase, failure.error_name
                kind = failure._kind = self._reasons.of(*where, failure.reason, now)
                groups.setdefault(kind, []).append(failure)
        for kind, group in groups.items():
            if kind.new:
                self._describe(kind, group[0])
            kind.count("attempts", len(group))
            self.attempts += len(group)
            self._log(kind, FAILED, group)
            if self._telemetry.active:
                self._report(group)

    def retried(self, failures: Sequence[Failure]) -> None:
        """They will be tried again."""
        self._became("retried", failures)

    def halted(self, failures: Sequence[Failure]) -> None:
        """They halt the run, whose error names them."""
        self._became("halted", failures)

    def said(self, failure: Failure) -> str:
        """What failed and where, such as `batch failed in 'load'`; the failure must be counted."""
        return _said(failure._kind)

    def disposed(self, failures: Sequence[Failure], outcome: str, into: Sequence[str]) -> None:
        """A policy settled them with an outcome, and wrote copies `into` streams."""
        counted, called = _OUTCOMES[outcome]
        where = f" into {', '.join(into)}" if into else ""
        for kind, group in self._became(counted, failures).items():
            self._log(kind, f"{called}{where}", group)

    def broke(
        self,
        stage: str,
        phase: str,
        error: BaseException,
        *,
        stream: str | None = None,
        offset: int | None = None,
    ) -> bool:
        """Something other than a message failed. Returns True for the first of its kind, which the
        caller logs."""
        text = describe(error)
        kind = self._reasons.of(stage, phase, type_name(error), text, time.time())
        if kind.new:
            kind.stream, kind.offset = stream, offset
            kind.traceback = traceback_of(error, TRACEBACK_LIMIT)
        kind.count("attempts", 1)
        first = self._notices.add(kind, FAILED, 1, self._clock())
        self._log_due()
        return first

    def _became(self, what: str, failures: Sequence[Failure]) -> dict[Kind, list[Failure]]:
        groups: dict[Kind, list[Failure]] = {}
        for failure in failures:
            if failure._kind is not None:
                groups.setdefault(failure._kind, []).append(failure)
        for kind, group in groups.items():
            kind.count(what, len(group))
        return groups

    def _describe(self, kind: Kind, failure: Failure) -> None:
        """The details that only the first of a kind has."""
        message = failure.message
        kind.stream, kind.offset = message.stream, message.offset
        kind.traceback = failure.traceback(TRACEBACK_LIMIT) or None
        kind.sample = sample(message, self._mask)

    # -- logging

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why attempts failed, the most frequent reason first."""
        return self._reasons.snapshot()

    def conclude(self) -> None:
        """The run is over: log all that is counted and not logged."""
        self._log_due(math.inf)

    def _report(self, failures: list[Failure]) -> None:
        """Emit an event for each kind; for those counted together one for each stage and error."""
        groups: dict[tuple[str, str, str], list[Failure]] = {}
        for failure in failures:
            groups.setdefault((failure.stage, failure.phase, failure.kind), []).append(failure)
        for (stage, phase, error), group in groups.items():
            count, reason = len(group), group[0].reason
            self._telemetry.emit(AttemptFailed(self._pipeline, stage, phase, error, count, reason))

    def _log(self, kind: Kind, what: str, group: list[Failure]) -> None:
        """Log the first of its kind. The others are counted for the next line."""
        if self._notices.add(kind, what, len(group), self._clock()):
            self._log_first(kind, what, group[0])
        self._log_due()

    def _log_first(self, kind: Kind, what: str, failure: Failure) -> None:
        message = failure.message
        said = f"{_said(kind)} at" if what == FAILED else f"{what}:"
        line = f"pipeline {self._pipeline!r}: {said} {message.stream}@{message.offset}"
        fields = self._fields(kind, message.stream, message.offset)
        _log.warning(f"{line}: {failure.reason}", extra=fields)
        if what == FAILED and kind.traceback:
            _log.debug(f"{line}:\n{kind.traceback}", extra=fields)

    def _log_due(self, now: float | None = None) -> None:
        """Log the lines that are due, and set the timer of the next ones."""
        now = self._clock() if now is None else now
        for kind, what, more in self._notices.due(now):
            like = "more like it" if what == FAILED else f"more {what}"
            _log.warning(
                f"pipeline {self._pipeline!r}: {more:,} {like} in the last minute: {_said(kind)}: "
                f"{kind.text}",
                extra=self._fields(kind, None, None, count=more),
            )
        if not self._armed and (due := self._notices.next) is not None:
            self._armed = True
            self._timers.at(due, self._ring)

    def _ring(self) -> None:
        self._armed = False
        self._log_due()

    def _fields(
        self, kind: Kind, stream: str | None, offset: int | None, **more: int
    ) -> dict[str, Any]:
        """The fields of a record: the place of the failure, not of the worker that logs it."""
        return {
            "pipeline": self._pipeline,
            "stage": kind.stage or None,
            "stream": stream,
            "offset": offset,
            "phase": kind.phase or None,
            "error": kind.error or None,
            **more,
        }


def _said(kind: Kind) -> str:
    """`batch failed in 'load'`."""
    if not kind.phase:
        return "failed"
    if kind.phase == "crash":
        return f"{kind.stage!r} crashed"
    place = kind.handler or kind.stage
    named = "" if place == kind.phase else f" in {place!r}"
    return f"{kind.phase} failed{named}"
