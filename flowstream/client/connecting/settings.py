"""Settings that all connections of an environment share, and the delays between attempts."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from flowstream.checks import MOST_FACTOR, check_kind, check_number, check_seconds, check_whole
from flowstream.errors import ConfigurationError

log = logging.getLogger("flowstream.client")

MOST_INT = (1 << 31) - 1
"""The largest value of the signed 32-bit fields of Tune."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between attempts, in seconds.

    The first delay is between `initial / 2` and `initial`. The bounds grow by `factor` with each
    attempt, up to `maximum`. The delay between the bounds is random, so that a thousand clients do
    not reconnect at the same moment.
    """

    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        check_seconds("Backoff initial", self.initial)
        check_seconds("Backoff maximum", self.maximum)
        if self.initial > self.maximum:
            raise ConfigurationError("Backoff: initial is greater than maximum; swap them")
        check_number("Backoff factor", self.factor, 1, MOST_FACTOR)

    def delay(
        self, attempt: int, uniform: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 1."""
        exponent = min(attempt - 1, 64)
        ceiling = min(self.maximum, self.initial * self.factor**exponent)
        return uniform(ceiling / 2, ceiling)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an environment's connections. Times are in seconds, sizes in bytes.

    `recovery_timeout` limits one outage: a publisher or consumer that cannot be attached again in
    this time gives up with the last error (None: it never gives up). `missing_timeout` is the limit
    while the stream is missing, as between its deletion and its creation.
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
        if self.frame_max != 0:  # 0: no limit
            check_whole("frame_max", self.frame_max, 4096, MOST_INT)
        check_whole("heartbeat", self.heartbeat, 0, MOST_INT)
        check_whole("per_connection", self.per_connection, 1, 256)
        check_whole("node_attempts", self.node_attempts, 1)
