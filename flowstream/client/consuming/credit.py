"""When credit goes back to the broker. Pure.

One credit is one chunk. A broker sends nothing while a subscription's credit is at or below half of
what it began with, and once above uses all of it (3.11.8 and later). So what is held back must
come back in the end, and `initial` chunks at most are under way or in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flowstream.checks import check_whole
from flowstream.errors import ConfigurationError
from flowstream.texts import shown

MOST = 32767


@runtime_checkable
class CreditStrategy(Protocol):
    """Decides how many credits to give at each moment in the life of a chunk."""

    @property
    def initial(self) -> int:
        """The credit of a new subscription, 1 to 32767."""
        ...

    def arrived(self) -> int:
        """A chunk has come in: so much credit goes back now."""
        ...

    def done(self) -> int:
        """The application asked for the next delivery: so much credit goes back now."""
        ...


@dataclass(frozen=True, slots=True)
class CreditWhenDone:
    """Back-pressure: a chunk's credit goes back when the next delivery is asked for."""

    initial: int = 10

    def __post_init__(self) -> None:
        check_whole("credit", self.initial, 1, MOST)

    def arrived(self) -> int:
        return 0

    def done(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class CreditOnArrival:
    """Throughput over bounds: credit goes back as soon as a chunk has come in.

    The chunks that wait in memory are then bounded by nothing but the application's speed: use it
    where that is known to be higher than the stream's.
    """

    initial: int = 10

    def __post_init__(self) -> None:
        check_whole("credit", self.initial, 1, MOST)

    def arrived(self) -> int:
        return 1

    def done(self) -> int:
        return 0


def credit_strategy(credit: object) -> CreditStrategy:
    """A number of chunks as a strategy, and a strategy as it is; else ConfigurationError."""
    if isinstance(credit, int):
        return CreditWhenDone(credit)
    if not isinstance(credit, CreditStrategy):
        raise ConfigurationError(
            f"credit={shown(credit)}: give a number of chunks from 1 to {MOST}, or a CreditStrategy"
        )
    check_whole("credit", credit.initial, 1, MOST)
    return credit
