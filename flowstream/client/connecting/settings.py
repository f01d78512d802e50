"""What all connections of an environment have in common. Checked when it is made."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from flowstream.checks import MOST_FACTOR, check_kind, check_number, check_seconds, check_whole
from flowstream.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between attempts, in seconds.

    Attempt 1 waits between `initial / 2` and `initial`; each further one up to twice as long,
    never more than `maximum`. The random half keeps a thousand clients from returning at once.
    """

    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        check_seconds("Backoff initial", self.initial)
        check_seconds("Backoff maximum", self.maximum)
        if self.initial > self.maximum:
            raise ConfigurationError("Backoff: initial is more than maximum; exchange them")
        check_number("Backoff factor", self.factor, 1, MOST_FACTOR)

    def delay(
        self, attempt: int, uniform: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Seconds to wait after the failed attempt number `attempt` (from 1)."""
        exponent = min(attempt - 1, 64)
        ceiling = min(self.maximum, self.initial * self.factor**exponent)
        return uniform(ceiling / 2, ceiling)


log = logging.getLogger("flowstream.client")

MOST = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are in seconds, sizes in bytes.

    `recovery_timeout` bounds one outage: a publisher or consumer that could not be attached again
    for so long gives up with the last error (None: never). `missing_timeout` is the same while
    the stream itself is missing, as it is between a deletion and a new creation.
    """

    frame_max: int = 1_048_576
    heartbeat: int = 60
    connect_timeout: float = 10.0
    request_timeout: float = 10.0
    close_timeout: float = 5.0
    backoff: Backoff = field(default_factory=Backoff)
    recovery_timeout: float | None = None
    missing_timeout: float = 30.0
    per_connection: int = 256
    node_attempts: int = 10

    def __post_init__(self) -> None:
        for name in ("connect_timeout", "request_timeout", "close_timeout", "missing_timeout"):
            check_seconds(name, getattr(self, name))
        if self.recovery_timeout is not None:
            check_seconds("recovery_timeout", self.recovery_timeout)
        check_kind("backoff", self.backoff, Backoff, "a Backoff(...) of flowstream.client")
        if self.frame_max != 0:  # no limit
            check_whole("frame_max", self.frame_max, 4096, MOST)
        check_whole("heartbeat", self.heartbeat, 0, MOST)
        check_whole("per_connection", self.per_connection, 1, 256)
        check_whole("node_attempts", self.node_attempts, 1)
