"""Markers: faults and pauses, placed among the messages of a stream in memory.

A marker takes effect once, when a consumer reaches its place; the next run passes it. In virtual
time a pause costs nothing, and it decides what has been done before a crash:

    [order, Crash()]               # crashes while the handler has the order
    [order, Pause(2), Crash()]     # handled (batch timeout 1 s), not committed (interval 5 s)
    [order, Pause(10), Crash()]    # handled and committed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flowstream.schema import check, listing, seconds


class Marker:
    """The base of all markers."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Crash(Marker):
    """The run ends as with `kill -9`: handlers are cut off, and nothing more is committed.

    Other runs in the same environment end with it, as they would in one process. A thread cannot
    be ended: a plain `def` handler that is running finishes, and its result is ignored.
    """


DURATION = seconds(above=False)


@listing
@dataclass(frozen=True, slots=True)
class Disconnect(Marker):
    """The connection is lost for `seconds`; publishing and committing wait until it is back."""

    seconds: Annotated[float, DURATION, "how long the connection is lost"] = 1.0

    def __post_init__(self) -> None:
        check(self, "Disconnect")


@listing
@dataclass(frozen=True, slots=True)
class Pause(Marker):
    """Nothing is delivered for `seconds`."""

    seconds: Annotated[float, DURATION, "how long nothing is delivered"]

    def __post_init__(self) -> None:
        check(self, "Pause")
