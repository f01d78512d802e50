"""Log records on standard error as text, JSON or logfmt, with fields and without repeats.

Only `configure` changes the root logger, and only `flowstream run` calls it. What a record carries
in `extra=` (pipeline, stage, stream, offset ...) is written as fields. Records from handlers get
these fields automatically. What Python itself would write to standard error, such as a warning or
the traceback of a thread, becomes a record, too.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from flowstream.cli.output import console
from flowstream.cli.output.safe_text import json_text, visible
from flowstream.pipeline import add_place
from flowstream.texts import (
    LOG_LIMIT,
    describe,
    is_a,
    plural,
    shown,
    text_of,
    traceback_of,
    without_passwords,
)

LIMIT = 5
"""Records of one kind that are written in INTERVAL. Later ones are counted and left out."""
INTERVAL = 10.0
KINDS = 1_000
"""Kinds of records that are counted, the most recent ones."""
LEFT_OUT = "left_out"
_OWN = (str, int, float, bool, type(None))

_PLAIN = logging.LogRecord("", 0, "", 0, "", None, None)
_STANDARD = {*vars(_PLAIN), "message", "asctime", "taskName"}
_FIRST = ("worker", "pipeline", "stage", "stream", "offset")
_ABOUT = ("pipeline", "stream")


def configure(level: str, format: str, worker: int | None = None) -> None:
    """Write log records from `level` on to standard error, as `format`.

    `worker` is the number of this worker process. It is a field of every record, except in text,
    where the parent puts it before each line.
    """
    handler = StderrHandler(RepeatFilter())
    if worker is not None and format != "text":
        handler.addFilter(WorkerField(worker))
    handler.setFormatter(FORMATTERS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended
    sys.unraisablehook = _ignored
    if format != "text":
        log = logging.getLogger("flowstream.cli")
        log.setLevel(min(logging.INFO, logging.getLogger().level))
        console.notes_to(log)


def enable() -> None:
    """Let flowstream's loggers speak again after a module of the user's was imported.

    `logging.config.dictConfig` disables all loggers that exist, unless it is asked not to, and
    frameworks such as Django call it. No failure would be logged then.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "flowstream" and isinstance(logger, logging.Logger):
            logger.disabled = False


def _thread_ended(raised: threading.ExceptHookArgs) -> None:
    """Log the exception that ended a thread of the user's program."""
    if is_a(raised.exc_value, SystemExit):  # as Python's own hook
        return
    name = "a thread" if raised.thread is None else f"thread {raised.thread.name!r}"
    _log_raised(f"an exception ended {name}", raised.exc_value)


def _ignored(raised: sys.UnraisableHookArgs) -> None:
    """Log an exception that cannot be raised, such as one in `__del__`."""
    what = raised.err_msg or "Exception ignored in"
    _log_raised(f"{what}: {shown(raised.object, LOG_LIMIT)}", raised.exc_value)


def _log_raised(text: str, error: BaseException | None) -> None:
    logging.getLogger("flowstream.run").error(
        "%s: %s", text, "" if error is None else describe(error), exc_info=error
    )


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which a live view replaces for a while."""

    def __init__(self, repeats: RepeatFilter) -> None:
        logging.Handler.__init__(self)
        self.addFilter(add_place)  # first: it may be written later, elsewhere
        self.addFilter(repeats)
        self._repeats = repeats

    def close(self) -> None:
        """Write the last records that were left out. The interpreter calls this before it ends."""
        for record in self._repeats.rest():
            self.emit(record)
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Name a record that cannot be written, such as one whose arguments do not fit."""
        error = sys.exc_info()[1]
        where = f"{record.pathname}:{record.lineno}"
        reason = "" if error is None else describe(error)
        with suppress(OSError, ValueError):
            sys.stderr.write(
                f"a log record of {record.name} ({where}) cannot be written: {reason}\n"
            )

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("the stream of this handler is always sys.stderr")


# -- repeats


@dataclass(slots=True)
class Kind:
    """Counts of one kind since `since`. `last` is the last record that was left out."""

    since: float
    passed: int = 0
    left_out: int = 0
    last: logging.LogRecord | None = None


class RepeatFilter(logging.Filter):
    """Lets `limit` records of one kind through in `interval` seconds.

    Records of one kind have the same logger, level, message, pipeline and stream. The next record
    that is written says in `left_out` how many were not.
    """

    def __init__(
        self,
        limit: int = LIMIT,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._limit = limit
        self._interval = interval
        self._clock = clock
        self._kinds: OrderedDict[object, Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "flowstream.cli":
            return True  # notes of the command are never repeats
        now = self._clock()
        about = [value for value in map(vars(record).get, _ABOUT) if type(value) is str]
        kind = self._kind((record.name, record.levelno, str(record.msg), *about), now)
        if now - kind.since >= self._interval:
            kind.since, kind.passed = now, 0
        if kind.passed >= self._limit:
            kind.left_out, kind.last = kind.left_out + 1, record
            return False
        if kind.left_out:
            setattr(record, LEFT_OUT, kind.left_out)
        kind.passed, kind.left_out, kind.last = kind.passed + 1, 0, None
        return True

    def rest(self) -> Iterator[logging.LogRecord]:
        """The last record of each kind that was left out, with the number of the others."""
        for kind in self._kinds.values():
            if kind.last is not None:
                if kind.left_out > 1:
                    setattr(kind.last, LEFT_OUT, kind.left_out - 1)
                yield kind.last

    def _kind(self, key: object, now: float) -> Kind:
        """The entry of a kind. The oldest entry is dropped beyond KINDS."""
        kind = self._kinds.setdefault(key, Kind(now))
        self._kinds.move_to_end(key)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        return kind


class WorkerField(logging.Filter):
    """Adds the number of the worker process to every record."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        return True


# -- formats


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record beside its message, pipeline, stage, stream and offset first."""
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    first = {name: extra.pop(name) for name in _FIRST if name in extra}
    return {name: value for name, value in (first | extra).items() if value is not None}


def document(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    """A record as one flat document."""
    moment = datetime.fromtimestamp(record.created, UTC)
    found: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **fields(record),
    }
    if record.exc_info:
        found["exception"] = formatter.formatException(record.exc_info)
    if record.stack_info:
        found["stack"] = record.stack_info
    return found


class SafeFormatter(logging.Formatter):
    """Writes a traceback even if the exception's own methods raise."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        error = ei[1]
        return "" if error is None else traceback_of(error, LOG_LIMIT).rstrip("\n")


class TextFormatter(SafeFormatter):
    """`2026-11-25 05:39:00,123 WARNING flowstream.pipeline: message [pipeline=orders]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        found = fields(record)
        left_out = found.pop(LEFT_OUT, None)
        text = super().formatMessage(record)
        if found:
            text += f" [{_pairs(found)}]"
        if left_out is not None:
            text += f" ({plural(left_out, 'similar record')} left out)"
        return text


class JsonFormatter(SafeFormatter):
    """One JSON object per line; `time` is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        return json_text(document(record, self))


class LogfmtFormatter(SafeFormatter):
    """`key=value` pairs in one line; `time` is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        return _pairs(document(record, self))


FORMATTERS: dict[str, type[SafeFormatter]] = {
    "text": TextFormatter,
    "json": JsonFormatter,
    "logfmt": LogfmtFormatter,
}


def _text_of_value(value: Any) -> str:
    return str(value) if type(value) in _OWN else text_of(value, LOG_LIMIT)


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = _text_of_value(value)
    plain = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if plain else json_text(text)
