"""Statistics to look at, made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from flowstream.pipeline import PartitionStatistics, RateLimit, StageStatistics, Statistics

PROCESSOR = StageStatistics(
    name="processor",
    kind="processor",
    concurrency=4,
    busy=2,
    waiting=30,
    parked=1,
    open_batches=0,
    handled=100,
    failed=2,
    retried=1,
    seconds=0.5,
    longest=0.1,
    hung=0,
    hot_key=None,
    times={"busy": 5.0, "idle": 35.0},
)
BATCHER = dataclasses.replace(PROCESSOR, name="default", kind="batcher", concurrency=1, failed=0)
PARTITION = PartitionStatistics(
    stream="s",
    received=599,
    watermark=549,
    committed=500,
    tail=999,
    lag=450,
    lag_seconds=1.5,
    deliveries=1,
    oldest=1.0,
)
RUNNING = Statistics(
    pipeline="p",
    phase="running",
    paused=False,
    uptime=10.0,
    received=600,
    settled={"ok": 548, "dead_lettered": 2, "dropped": 0},
    failed=2,
    retried=1,
    in_flight=50,
    in_flight_bytes=5_000,
    max_in_flight=10_000,
    max_in_flight_bytes=1 << 20,
    highest_in_flight=80,
    highest_in_flight_bytes=8_000,
    rate_limit=RateLimit(messages=1000),
    awaiting_policy=0,
    restarts=0,
    hung=0,
    progress_age=0.5,
    uncommitted=0.0,
    source={"busy": 1.0, "idle": 6.0, "backpressured": 2.0, "rate_limited": 1.0},
    slow_after=10.0,
    stuck_after=60.0,
    batch_timeout=1.0,
    commit_interval=5.0,
    stages=(PROCESSOR, BATCHER),
    partitions=(PARTITION,),
)


class Changing:
    """Statistics that a test changes between two looks."""

    def __init__(self, statistics: Statistics = RUNNING) -> None:
        self.now = statistics

    def __call__(self) -> Statistics:
        return self.now

    def change(self, **values: Any) -> None:
        self.now = dataclasses.replace(self.now, **values)
