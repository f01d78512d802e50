"""How long requests and failures take, as measured on RabbitMQ 4.0 (docs/scale.md)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Network:
    """Times in seconds. Two runs with the same `seed` are the same."""

    round_trip: float = 0.001
    """From a request to its answer, without what the broker does."""

    subscribe: float = 0.003
    """What a worker needs to open the consumer of one partition; it opens several side by side."""

    coordinate: float = 0.0005
    """What the coordinator needs for one command; it handles one at a time for all groups."""

    detect: float = 0.0
    """From the death of a worker until the broker closes its connections: nothing for a process
    that is killed, two heartbeats (120 s) for a machine that loses its power."""

    spread: float = 0.3
    """The random part of each time, to both sides."""

    seed: int = 1
    random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", random.Random(self.seed))

    def some(self, seconds: float) -> float:
        """About so many seconds."""
        return seconds * self.random.uniform(1 - self.spread, 1 + self.spread)
