"""Sizes and times as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowstream.checks import MOST_SECONDS
from flowstream.cli.exit_codes import CommandError, ExitCode

if TYPE_CHECKING:
    from flowstream.client import Offset

_SIZE = re.compile(r"([0-9]{1,18})\s*([kmgt]?i?b?)", re.IGNORECASE)
_TIME = re.compile(r"([0-9]{1,10})\s*(s|m|h|d|w)", re.IGNORECASE)
_OFFSET = re.compile(r"[0-9]{1,19}")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_size(option: str, text: str | None) -> int | None:
    """Bytes from `500000`, `100MB` (powers of 1000) or `100MiB` (powers of 1024)."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise CommandError(
            f"{option} {text!r} is no size; write 500000, 100MB or 20GiB", ExitCode.USAGE
        )
    unit = match[2].lower().removesuffix("b")
    base = 1024 if unit.endswith("i") else 1000
    factor: int = base ** _POWERS[unit.removesuffix("i")]
    return int(match[1]) * factor


def parse_duration(option: str, text: str | None) -> timedelta | None:
    """A time span from `30s`, `10m`, `12h`, `7d` or `2w`."""
    if text is None:
        return None
    span = _span(text)
    if span is None:
        raise CommandError(
            f"{option} {text!r} is no time span; write 30s, 10m, 12h or 7d", ExitCode.USAGE
        )
    return span


def _span(text: str) -> timedelta | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    seconds = int(match[1]) * _SECONDS[match[2].lower()]
    return timedelta(seconds=seconds) if seconds <= MOST_SECONDS else None


def retention(
    *, max_bytes: str | None, max_age: str | None, segment_bytes: str | None
) -> dict[str, Any]:
    """The arguments for a new stream from its options."""
    return {
        "max_length_bytes": parse_size("--max-bytes", max_bytes),
        "max_age": parse_duration("--max-age", max_age),
        "max_segment_size_bytes": parse_size("--segment-bytes", segment_bytes),
    }


def parse_place(option: str, text: str) -> Offset:
    """A place in a stream: first, last, next, an offset, a time (local unless it names a zone), or
    an age such as `30m`."""
    if text in {"first", "last", "next"}:
        return text
    if _OFFSET.fullmatch(text):
        return int(text)
    span = _span(text)
    if span is not None:
        return span
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(
            f"{option} {text!r} is no place in a stream; write first, last, next, an offset, a "
            "time such as 2026-11-23T09:00, or an age such as 30m, 2h or 7d",
            ExitCode.USAGE,
        ) from None
