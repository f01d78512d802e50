"""A pipeline whose batches take a second each, with far more waiting than it will ever handle.

    python -m tests.chaos.waiting URL SECONDS

Prints what it saw as JSON: samples of the memory, the statistics, the connections lost.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from flowstream import Batch, Environment, Message, Pipeline, StreamProducer
from flowstream.telemetry import ConnectionLost, Event, StateChanged, Telemetry

STREAM = "waiting"
HEARTBEAT = 2
MAX_IN_FLIGHT = 5000
ON_REQUEST = "the connection was closed on request"
"""By the client itself, as after a look at a 3.10 stream's end; nothing was lost."""
STATUS = Path("/proc/self/status")

pipeline = Pipeline(
    "waiting", StreamProducer(STREAM), max_in_flight=MAX_IN_FLIGHT, drain_timeout=20.0
)


@pipeline.processor(concurrency=4)
async def look(message: Message[bytes]) -> None:
    assert len(message.data) == 100


@pipeline.batcher(size=500)
def load(batch: Batch[bytes]) -> None:
    time.sleep(1)


@dataclass
class Lost:
    """An observer: what was lost against the client's will, and every recovery."""

    events: list[str] = field(default_factory=list)

    def observe(self, event: Event, /) -> None:
        recovering = isinstance(event, StateChanged) and event.state == "recovering"
        if recovering or (isinstance(event, ConnectionLost) and event.reason != ON_REQUEST):
            self.events.append(repr(event))


def resident() -> int:
    """Resident memory in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def main(url: str, seconds: float) -> dict[str, Any]:
    lost = Lost()
    telemetry = Telemetry(lost)
    samples = []
    async with (
        Environment(url, heartbeat=HEARTBEAT, telemetry=telemetry) as environment,
        pipeline.start(environment=environment, telemetry=telemetry) as running,
    ):
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            samples.append((round(now, 2), running.statistics().in_flight, resident()))
            await anyio.sleep(0.25)
        statistics = running.statistics()
        connections_lost = list(lost.events)
        running.stop()
        result = await running.wait()
    return {
        "samples": samples,
        "highest_in_flight": statistics.highest_in_flight,
        "max_in_flight": statistics.max_in_flight,
        "handled": sum(statistics.settled.values()),
        "handled_in_the_end": result.handled,
        "committed": result.committed[STREAM],
        "error": None if result.error is None else repr(result.error),
        "lost": connections_lost,
    }


if __name__ == "__main__":
    print(json.dumps(anyio.run(main, sys.argv[1], float(sys.argv[2]))))
