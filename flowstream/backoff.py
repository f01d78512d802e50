"""How long to wait before another attempt: of a handler, and of a connection. Pure."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from flowstream.checks import MOST_FACTOR, MOST_SECONDS, check_number


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays in seconds: `initial * factor ** n`, at most `maximum`, with jitter.

    `jitter` 0.2 means that the delay is drawn from 80 % to 120 % of it: a thousand clients that
    lost one broker do not return at the same moment.
    """

    initial: float = 0.1
    _: KW_ONLY
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        for name, least, most in (
            ("initial", 0, MOST_SECONDS),
            ("factor", 1, MOST_FACTOR),
            ("maximum", 0, MOST_SECONDS),
            ("jitter", 0, 1),
        ):
            check_number(f"Backoff {name}", getattr(self, name), least, most)

    def delay(self, attempt: int, chance: float = 0.5) -> float:
        """The seconds to wait after `attempt` (1, 2, ...) failed; `chance` is in [0, 1)."""
        exponent = min(attempt - 1, 64)
        base = min(self.maximum, self.initial * self.factor**exponent)
        return base * (1 + self.jitter * (2 * chance - 1))
