"""A guarantee: how often what is done with a message takes effect, whatever dies meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["exactly once", "at least once", "at most once", "no guarantee"]


@dataclass(frozen=True, slots=True)
class Guarantee:
    """`reason` says why it is not a higher one, and `remedy` how to get that; empty if neither."""

    level: Level
    reason: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.reason}" if self.reason else self.level


EXACTLY_ONCE = Guarantee("exactly once")
