"""Sizes and times as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from flowstream.cli.exits import CommandError, ExitCode

_SIZE = re.compile(r"(\d+)\s*([kmgt]?i?b?)", re.IGNORECASE)
_TIME = re.compile(r"(\d+)\s*(s|m|h|d|w)", re.IGNORECASE)
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
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise CommandError(
            f"{option} {text!r} is no time span; write 30s, 10m, 12h or 7d", ExitCode.USAGE
        )
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2].lower()])
