"""How long to wait before trying again: exponential with full jitter above a floor. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from flowstream.checks import MOST_FACTOR, check_number, check_seconds
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
