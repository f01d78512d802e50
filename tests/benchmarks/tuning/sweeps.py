"""What is measured: a sweep varies one option, for each of some pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

WAIT = 0.005
"""Seconds that a handler waits for its service, in the sweeps of workers and of the window."""


@dataclass(frozen=True)
class Series:
    """A pipeline of side.py with its options, how many messages it handles at a point, and the
    stream that it reads: messages in chunks of `chunk`."""

    name: str
    run: str
    messages: Callable[[int], int]
    points: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    chunk: int = 1000
    distance: float = 0.0
    """Seconds that bytes take from the broker to the client, and back."""
    rate: int | None = None
    """Messages a second that another process publishes meanwhile; None: they are there before."""


@dataclass(frozen=True)
class Sweep:
    name: str
    option: str
    """The option that varies, which is what side.py knows it by."""
    series: tuple[Series, ...]


def seconds_of(rate: float, seconds: float = 2.0, most: int = 40_000) -> Callable[[int], int]:
    """Messages for some seconds, where `rate` times the point is what to expect in a second."""
    return lambda point: min(most, max(200, round(rate * point * seconds)))


def chunks(size: int) -> Callable[[int], int]:
    """Messages for about a second, where each credit brings a chunk in 10 ms."""
    return lambda point: min(size * min(100 * point, 2_000), 200_000)


WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SIZES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
CREDITS = (2, 5, 10, 20, 50, 100)

SWEEPS = (
    Sweep(
        "workers",
        "concurrency",
        (
            Series("async def", "waiting", seconds_of(1 / WAIT), WORKERS),
            Series(
                "def, in threads", "waiting", seconds_of(1 / WAIT), WORKERS[:-2], {"threads": True}
            ),
        ),
    ),
    Sweep(
        "batches",
        "size",
        (
            Series("SqliteSink", "rows", seconds_of(1_000), SIZES, {"kind": "sqlite"}),
            Series("PostgresSink", "rows", seconds_of(500), SIZES, {"kind": "postgres"}),
            Series("empty handler", "empty_batches", seconds_of(20_000, most=200_000), SIZES),
        ),
    ),
    Sweep(
        "latency",
        "size",
        tuple(
            Series(
                f"batch_timeout={timeout}",
                "batch_latency",
                lambda point: 6_000,
                (10, 30, 100, 300, 1_000, 3_000),
                {"batch_timeout": timeout},
                rate=1_000,
            )
            for timeout in (1.0, 0.1)
        ),
    ),
    Sweep(
        "window",
        "max_in_flight",
        (
            Series(
                "20 handlers",
                "waiting",
                seconds_of(1 / WAIT, most=10_000),
                (5, 10, 20, 40, 100, 1_000, 10_000),
                {"concurrency": 20},
            ),
            Series(
                "4 batches of 500",
                "slow_target",
                lambda point: 100_000,
                (500, 1_000, 2_000, 4_000, 10_000, 30_000, 100_000),
                {"size": 500, "concurrency": 4},
            ),
        ),
    ),
    Sweep(
        "credit",
        "credit",
        tuple(
            Series(
                f"chunks of {chunk:,}",
                "empty_batches",
                chunks(chunk),
                CREDITS,
                {"size": 1_000},
                chunk=chunk,
                distance=0.005,
            )
            for chunk in (10, 100, 1_000)
        ),
    ),
)
