"""Which segments a stream keeps. Source: osiris_log, eval_max_bytes and eval_age."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flowstream.broker.records import Segment

_AGE = re.compile(r"(\d+)([YMDhms])")
_AGE_SECONDS = {"Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3600, "m": 60, "s": 1}


def parse_age(text: str) -> int:
    """A `max-age` such as "7D" in milliseconds; ValueError for anything else."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an age such as 7D")
    return int(match[1]) * _AGE_SECONDS[match[2]] * 1000


def kept(segments: Sequence[Segment], max_bytes: int | None, max_age: int | None, now: int) -> int:
    """How many of the segments stay, the newest ones; at least one. Age and `now` in ms."""
    count = len(segments)
    if max_bytes is not None:
        count = 1
        room = max_bytes - segments[-1].bytes
        for segment in list(segments)[-2::-1]:
            if segment.bytes > room:
                break
            room -= segment.bytes
            count += 1
    if max_age is not None:
        while count > 1 and segments[-count].last_timestamp < now - max_age:
            count -= 1
    return count
