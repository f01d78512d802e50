"""A smooth rate limit. Pure: `now` is given.

Messages and bytes have a virtual clock each. What is admitted moves the clock ahead by its cost,
and nothing is admitted while the clock is ahead of `now`. Idle time counts for at most SLACK
seconds, so that over ten seconds a limit is exceeded by at most one percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from flowstream.checks import is_number
from flowstream.errors import ConfigurationError
from flowstream.schema import Bounds, check, listing, seconds

SLACK = 0.1
SHORTEST = 1e-3
LEAST, MOST = 1e-6, 1e15
"""Of messages or bytes in an interval; 0 is none at all."""
UNLIMITED = 1 << 62


def _rate(unit: str) -> Bounds:
    return Bounds(
        f"a number from {LEAST:g} to {MOST:g} ({unit}), or 0 for none",
        lambda value: is_number(value, 0, 0) or is_number(value, LEAST, MOST),
        most=MOST,
    )


@listing
@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `messages` and `bytes` every `interval` seconds, for all partitions of a pipeline.

    With 0 nothing is taken in; None is no limit.
    """

    messages: Annotated[
        float | None,
        _rate("messages"),
        "the most messages in an interval, a second by default; 0 stops the intake",
    ] = None
    interval: Annotated[float, seconds(SHORTEST, above=False), "seconds of an interval"] = 1.0
    bytes: Annotated[
        float | None,
        _rate("bytes"),
        "the most bytes in an interval, a second by default; 0 stops the intake",
    ] = None

    def __post_init__(self) -> None:
        check(self, "RateLimit")
        if self.messages is None and self.bytes is None:
            raise ConfigurationError("RateLimit: expected messages=, bytes= or both")


class RateLimiter:
    """The state of a limit; `limit` may be changed at any time."""

    __slots__ = ("_ahead_bytes", "_ahead_messages", "limit")

    def __init__(self, limit: RateLimit | None) -> None:
        self.limit: RateLimit | None = limit
        self._ahead_messages = -math.inf
        self._ahead_bytes = -math.inf

    def room(self, now: float) -> tuple[int, int, float]:
        """(messages, bytes) that may be admitted now, and the seconds to wait when none may.

        A message larger than the bytes is admitted when any fit, and the following ones wait for
        longer. The wait is infinite while the limit is 0.
        """
        limit = self.limit
        if limit is None:
            return UNLIMITED, UNLIMITED, 0.0
        if limit.messages == 0 or limit.bytes == 0:
            return 0, 0, math.inf
        messages, wait = _room(limit.messages, limit.interval, self._ahead_messages, now)
        size, wait_bytes = _room(limit.bytes, limit.interval, self._ahead_bytes, now)
        if messages < 1 or size < 1:
            return 0, 0, max(wait, wait_bytes)
        return messages, size, 0.0

    def take(self, now: float, messages: int, size: int) -> None:
        """Account for what was admitted at `now`: `messages` of `size` bytes in all."""
        limit = self.limit
        if limit is None:
            return
        if limit.messages:
            cost = limit.interval / limit.messages
            start = max(self._ahead_messages, now - max(SLACK, cost))
            self._ahead_messages = start + messages * cost
        if limit.bytes:
            cost = limit.interval / limit.bytes
            start = max(self._ahead_bytes, now - max(SLACK, cost))
            self._ahead_bytes = start + size * cost


def _room(
    per_interval: float | None, interval: float, ahead: float, now: float
) -> tuple[int, float]:
    """Whole units that may be taken now, and the seconds until one may."""
    if per_interval is None:
        return UNLIMITED, 0.0
    cost = interval / per_interval
    start = max(ahead, now - max(SLACK, cost))
    return int((now - start) / cost + 1e-6), max(start + cost - now, 0.0)
