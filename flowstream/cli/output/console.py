"""Standard output and standard error, in the same form for every command.

On a terminal, colours come from Rich, which honours `NO_COLOR`. A pipe gets plain text. No text is
interpreted as markup or as the name of an emoji, and text from others reaches a terminal without
control sequences (safe_text.py).

Rich is imported only where it is needed: loading it takes a tenth of a second, and `--help` and
errors in a pipe do not use it.
"""

from __future__ import annotations

import atexit
import errno
import io
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TextIO

from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code, root_cause
from flowstream.cli.output.safe_text import json_text, visible
from flowstream.texts import (
    LOG_LIMIT,
    last_note,
    printable,
    text_of,
    traceback_of,
    type_name,
    without_passwords,
)

if TYPE_CHECKING:
    from rich.console import Console


_tracebacks: list[bool] = []
_notes: list[logging.Logger] = []

REPORT_LIMIT = 16_384
"""Characters of an error. One about blocked threads shows the stack of each."""

_QUOTED = re.compile(r"""(['"])[\w+.-]+://.*?(?<!\\)\1""", re.DOTALL)
_ADDRESS = re.compile(r"://(?! or | \().*@", re.DOTALL)  # not in "http:// or https:// (such as"

_UNITS = ("B", "kB", "MB", "GB", "TB")


ERASE = "\r\x1b[K"


class StatusLine:
    """One line at the end of a terminal that is rewritten; other output is printed above it.

    Any thread may use it, and may hold `lock` for several calls.
    """

    def __init__(self) -> None:
        self.lock: Final = threading.RLock()
        self._shown = False

    def show(self, line: str) -> None:
        """Replace the line. It may have escape sequences, and must fit the terminal."""
        with self.lock:
            sys.stderr.write(f"{ERASE}{line}")
            sys.stderr.flush()
            self._shown = True

    @contextmanager
    def above(self) -> Iterator[None]:
        """Remove the line, and keep other threads from writing one meanwhile."""
        with self.lock:
            if self._shown:
                sys.stderr.write(ERASE)
                sys.stderr.flush()
                self._shown = False
            yield

    def clear(self) -> None:
        """Remove the line."""
        with self.above():
            pass


status_line: StatusLine = StatusLine()
"""The status line of this process."""


@cache
def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)


@cache
def stderr() -> Console:
    """The console for notes, progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def drawn(stream: TextIO) -> bool:
    """Whether Rich draws on `stream`: a terminal, or forced by variables that Rich knows."""
    if not stream.isatty() and not {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys():
        return False
    return _console(stream).is_terminal


def redrawn(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can be redrawn in place."""
    return stream.isatty() and drawn(stream) and _console(stream).is_interactive


def _console(stream: TextIO) -> Console:
    return stderr() if stream is sys.stderr else stdout()


def _print(stream: TextIO, text: str, style: str | None) -> None:
    text = visible(text, keep="\n\t")
    with _unread_notes(stream), status_line.above():
        if drawn(stream):
            _console(stream).print(text, style=style, markup=False)
        else:
            stream.write(text + "\n")


def say(text: str, style: str | None = None) -> None:
    """Print a line of the result. Markup in `text` is not interpreted."""
    _print(sys.stdout, text, style)


def note(text: str, style: str | None = None) -> None:
    """Print a line that is not part of the result: progress, hints, summaries."""
    if _notes:
        _notes[-1].info("%s", text)
    else:
        _print(sys.stderr, text, style)


def warn(text: str) -> None:
    """Print a warning in one line."""
    if _notes:
        _notes[-1].warning("%s", text)
    else:
        _marked("warning", "bold yellow", visible(text, keep="\n\t"))


def _marked(mark: str, style: str, text: str) -> None:
    """Print `error: text` on standard error, with the mark in its colour."""
    with _unread_notes(sys.stderr), status_line.above():
        if drawn(sys.stderr):
            stderr().print(f"{mark}: ", style=style, end="")
            stderr().print(text, markup=False)
        else:
            sys.stderr.write(f"{mark}: {text}\n")


def notes_to(log: logging.Logger) -> None:
    """Write notes and errors as records of this logger, so that standard error has one format."""
    _notes.append(log)


def write(text: str) -> None:
    """Write whole lines of the result unchanged."""
    with status_line.above():
        sys.stdout.write(text)


def discard(stream: TextIO) -> None:
    """Write nothing more to a stream whose reader has gone (`| head`, a closed terminal)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _unread_notes(stream: TextIO) -> Iterator[None]:
    """Go on if standard error cannot be written to: a full disk of logs must not end a run."""
    try:
        yield
    except OSError as error:
        if stream is not sys.stderr:
            raise
        if error.errno in {errno.EPIPE, errno.EIO}:
            discard(stream)


def flush_notes() -> None:
    """Write the last notes. If the interpreter could not, its exit code would be 120."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            discard(sys.stderr)


class _Results(io.FileIO):
    """Standard output, which remembers that it could not be written to."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            self.failure = error
            raise


def open_results() -> None:
    """Open standard output in lines, so that results and notes keep their order."""
    atexit.register(flush_notes)
    if isinstance(sys.stdout, io.TextIOWrapper):
        raw = _Results(sys.stdout.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stdout.encoding, "backslashreplace", line_buffering=True
        )


def unwritten_result() -> CommandError | None:
    """The error of a result that could not be written, or None. Nothing more is written then."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Results) else None
    if failure is None:
        return None
    discard(sys.stdout)
    reason, remedy = why(failure), "free space there, or write it elsewhere"
    if failure.errno == errno.EBADF:
        reason, remedy = "it is closed", "redirect it to a file, or to /dev/null"
    text = f"the result could not be written to standard output: {reason}; {remedy}"
    return CommandError(text, ExitCode.OUTPUT)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    write(json_text(value, indent=2, ascii_only=not _unicode()) + "\n")


def print_json_line(value: Any) -> None:
    """Print one of several JSON documents, in one line."""
    write(json_text(value, ascii_only=not _unicode()) + "\n")


def _unicode() -> bool:
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") in {"utf8", "utf16", "utf32"}


def short_duration(seconds: float) -> str:
    """`9 ms`, `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
    if 0 < seconds < 0.095:
        return f"{math.ceil(seconds * 1000)} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def short_size(size: float) -> str:
    """`812 B`, `1.5 MB`: powers of 1000."""
    power = 0
    while size >= 1000 and power < len(_UNITS) - 1:
        size /= 1000
        power += 1
    digits = 0 if power == 0 or size >= 100 else 1
    return f"{size:.{digits}f} {_UNITS[power]}"


def show_tracebacks() -> None:
    """Make `report` write the traceback before its line."""
    _tracebacks.append(True)


def one_line(text: str) -> str:
    """The text with one space for every run of white space."""
    return " ".join(text.split())


def without_addresses(text: str) -> str:
    """The text without the addresses in it.

    It may quote a command line, where a password may contain spaces.
    """
    return _ADDRESS.sub("://***@", _QUOTED.sub(r"\1***\1", text))


def why(error: object) -> str:
    """The reason of a network error in words, such as `connection refused`."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else text_of(error)
    return one_line(text[:1].lower() + text[1:])


def report(error: BaseException) -> ExitCode:
    """Print an error in one line, and return the exit code to end with."""
    code, text = error_line(error)
    if _tracebacks and not _notes:
        trace = traceback_of(error, LOG_LIMIT)
        with _unread_notes(sys.stderr):
            sys.stderr.write(visible(trace, keep="\n"))
    report_line(text, code, error)
    return code


def error_line(error: BaseException) -> tuple[ExitCode, str]:
    """The exit code of an error, and the line that reports it."""
    cause = root_cause(error)
    code = exit_code(cause)
    hide = without_addresses if code is ExitCode.USAGE else without_passwords
    text = hide(visible(text_of(cause, REPORT_LIMIT)))
    if code is ExitCode.UNEXPECTED:
        about = f"{more}; " if (more := hide(visible(last_note(cause)))) else ""
        text = f"{type_name(cause)}: {text} ({about}flowstream --debug ... shows the traceback)"
    return code, text


def report_line(text: str, code: ExitCode, error: BaseException | None = None) -> None:
    """Print the line of an error."""
    if _notes:
        traced = None if error is None else _traced(error)
        _notes[-1].error("%s", text, extra={"exit_code": int(code)}, exc_info=traced)
    else:
        _marked("error", "bold red", text)


def _traced(error: BaseException) -> BaseException | None:
    return printable(error) if _tracebacks else None
