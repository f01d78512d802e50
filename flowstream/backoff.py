"""How long to wait before another attempt: of a handler, and of a connection. Pure."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from flowstream.checks import MOST_FACTOR
from flowstream.schema import check, listing, number, seconds


@listing
@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays in seconds: `initial * factor ** n`, at most `maximum`, with jitter.

    `jitter` 0.2 means that the delay is drawn from 80 % to 120 % of it: a thousand clients that
    lost one broker do not return at the same moment. No draw is above `maximum`: delays grow until
    the largest draw is `maximum`, so that they differ there too.
    """

    initial: Annotated[float, seconds(above=False), "seconds before the second attempt"] = 0.1
    _: KW_ONLY
    factor: Annotated[float, number(1, MOST_FACTOR), "by which each delay is longer"] = 2.0
    maximum: Annotated[float, seconds(above=False), "the longest delay, jitter included"] = 30.0
    jitter: Annotated[float, number(0, 1), "the random part of a delay, to both sides"] = 0.2

    def __post_init__(self) -> None:
        check(self, "Backoff")

    def delay(self, attempt: int, chance: float = 0.5) -> float:
        """The seconds to wait after `attempt` (1, 2, ...) failed; `chance` is in [0, 1)."""
        exponent = min(attempt - 1, 64)
        base = min(self.maximum / (1 + self.jitter), self.initial * self.factor**exponent)
        return min(self.maximum, base * (1 + self.jitter * (2 * chance - 1)))
