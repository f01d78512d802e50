"""Markers: faults and pauses, placed among the messages of a stream in memory.

A marker takes effect once, when a consumer reaches its place; the next run passes it. In virtual
time a pause costs nothing, and it decides what has been done before a crash:

    [order, Crash()]               # crashes while the handler has the order
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
    """The run ends as with `kill -9`: handlers are cut off, and nothing more is committed.

    Other runs in the same environment end with it, as they would in one process. A thread cannot
    be ended: a plain `def` handler that is running finishes, and its result is ignored.
    """


@dataclass(frozen=True, slots=True)
class Disconnect(Marker):
    """The connection is lost for `seconds`; publishing and committing wait until it is back."""

    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_number("Disconnect seconds", self.seconds, 0, MOST_SECONDS)


@dataclass(frozen=True, slots=True)
class Pause(Marker):
    """Nothing is delivered for `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        check_number("Pause seconds", self.seconds, 0, MOST_SECONDS)
