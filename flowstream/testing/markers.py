"""What happens to a source in memory, put among its messages at the place where it happens.

A marker happens once: a run that is resumed before its place passes it by. Pauses in virtual time
cost nothing, and place a crash between handling and commit:

    [order, Crash()]               # dies with the order in the handler's hands
    [order, Pause(2), Crash()]     # handled (batch timeout 1 s), not committed (interval 5 s)
    [order, Pause(10), Crash()]    # handled and committed
"""

from __future__ import annotations

from dataclasses import dataclass

from flowstream.checks import MOST_SECONDS, check_number


class Marker:
    """The base of all markers."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Crash(Marker):
    """The run dies as by kill -9: handlers are cut off, and nothing is committed any more.

    Runs that go on in the same environment just then die with it, as in one process. A plain `def`
    handler that is in its thread just then runs to its end there.
    """


@dataclass(frozen=True, slots=True)
class Disconnect(Marker):
    """The connection breaks for `seconds`; publishing and committing wait until it is back."""

    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_number("Disconnect seconds", self.seconds, 0, MOST_SECONDS)


@dataclass(frozen=True, slots=True)
class Pause(Marker):
    """Nothing comes for `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        check_number("Pause seconds", self.seconds, 0, MOST_SECONDS)
