"""Values of options as people write them: sizes, times, offsets, addresses, patterns.

Each function is the `parser=` of an option. It raises `typer.BadParameter`, to which the parser
adds the name of the option.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

from flowstream.checks import MOST_SECONDS
from flowstream.cli.configuration.options import AUTO, MOST_WORKERS, is_worker_count
from flowstream.texts import clipped

LOOPBACK = "127.0.0.1"

FEED_RATE = 500.0
"""Messages a second of `--feed FILE` without a rate."""

MAX_FEED_RATE = 1e9

_SIZE = re.compile(r"([0-9]{1,18})\s*([kmgt]?i?b?)", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,10})\s*(s|m|h|d|w)", re.IGNORECASE)
_OFFSET = re.compile(r"[0-9]{1,19}")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_QUOTED = 60
"""Characters of a value that an error quotes."""


def invalid(text: str, message: str, option: str | None = None) -> typer.BadParameter:
    """The error for a value, which it quotes. `option` is needed outside of a `parser=` only."""
    hint = None if option is None else f"'{option}'"
    return typer.BadParameter(f"{clipped(text, _QUOTED)!r} {message}", param_hint=hint)


def parse_size(text: str) -> int:
    """Bytes, from `500000`, `100MB` (powers of 1000) or `100MiB` (powers of 1024)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise invalid(text, "is not a size; write 500000, 100MB or 20GiB")
    unit = match[2].lower().removesuffix("b")
    base = 1024 if unit.endswith("i") else 1000
    factor: int = base ** _POWERS[unit.removesuffix("i")]
    return int(match[1]) * factor


def parse_duration(text: str) -> timedelta:
    """A time span, from `30s`, `10m`, `12h`, `7d` or `2w`."""
    duration = _duration(text)
    if duration is None:
        raise invalid(text, "is not a time span; write 30s, 10m, 12h or 7d")
    return duration


def _duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    seconds = int(match[1]) * _SECONDS[match[2].lower()]
    return timedelta(seconds=seconds) if seconds <= MOST_SECONDS else None


def parse_offset(text: str) -> str | int | datetime | timedelta:
    """A position in a stream: `first`, `last`, `next`, an offset, a time, or an age such as `30m`.

    A time without a zone is local time.
    """
    if text in {"first", "last", "next"}:
        return text
    if _OFFSET.fullmatch(text):
        return int(text)
    age = _duration(text)
    if age is not None:
        return age
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(
            text,
            "is not a position in a stream; write first, last, next, an offset, a time such as "
            "2026-11-23T09:00, or an age such as 30m, 2h or 7d",
        ) from None


def parse_address(text: str) -> tuple[str, int]:
    """Host and port, from `HOST:PORT`, `:PORT`, `PORT` or `http://HOST:PORT/`.

    The host is loopback where none is given.
    """
    host, _, port = text.removeprefix("http://").removesuffix("/").rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or set(host) & set("/@ "):
        raise invalid(text, "is not an address; write HOST:PORT or :PORT")
    return host.strip("[]") or LOOPBACK, int(port)


def parse_feed(text: str) -> tuple[str, float]:
    """(file, messages a second), from `FILE@RATE` or `FILE`.

    What follows the last @ is a rate only if it is a number.
    """
    file, _, rate = text.rpartition("@")
    try:
        number = float(rate)
    except ValueError:
        return text, FEED_RATE
    if not file or number < 0:
        return text, FEED_RATE
    if not 0 < number <= MAX_FEED_RATE:
        raise invalid(
            text, f"has a wrong rate: more than 0 and at most {MAX_FEED_RATE:,.0f} a second"
        )
    return file, number


def parse_workers(text: str) -> str:
    """A number of worker processes, or `auto`."""
    if not is_worker_count(text):
        raise invalid(text, f"is not a number of workers; write 1 to {MOST_WORKERS}, or {AUTO}")
    return text


def parse_user(text: str) -> tuple[str, str]:
    """(name, password), from `NAME:PASSWORD`. The error does not quote the value."""
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise typer.BadParameter("NAME:PASSWORD is expected")
    return name, password


def parse_pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise invalid(text, f"is not a regular expression: {error}") from error
