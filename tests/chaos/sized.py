"""A pipeline with a slow handler over a stream of one size of messages, and its peak of memory.

    python -m tests.chaos.sized URL STREAM IN_FLIGHT IN_FLIGHT_BYTES CREDIT FULL HANDLE DELAY

The handler begins when FULL messages are in flight, which is slower than any broker. It handles at
least HANDLE messages, a slice of them in DELAY seconds, then drains. Prints as JSON what was in
flight, the largest chunk that came, and how much resident memory grew at its peak.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from flowstream import Environment, Message, Pipeline, StreamProducer
from flowstream.telemetry import ChunkReceived, Event, Telemetry

PROCESS = Path("/proc/self")


@dataclass
class Chunks:
    """An observer: the largest chunk, and the most bytes that waited to be handed over."""

    records: int = 0
    size: int = 0
    buffered: int = 0

    def observe(self, event: Event, /) -> None:
        if isinstance(event, ChunkReceived):
            self.records = max(self.records, event.messages)
            self.size = max(self.size, event.bytes)
            self.buffered = max(self.buffered, event.buffered)


def memory(field: str) -> int:
    """A field of the process's status in bytes: VmRSS is the resident memory, VmHWM its peak."""
    text = (PROCESS / "status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


async def main(url: str, stream: str, limits: list[int], handle: int, delay: float) -> Any:
    max_in_flight, max_in_flight_bytes, credit, full = limits
    pipeline = Pipeline(
        "sized",
        StreamProducer(stream, credit=credit),
        max_in_flight=max_in_flight,
        max_in_flight_bytes=max_in_flight_bytes,
    )

    begun = threading.Event()

    @pipeline.processor(concurrency=2)
    def slow(message: Message[bytes]) -> None:
        assert message.data
        assert begun.wait(60), "the window was not full within a minute"
        time.sleep(delay)

    chunks = Chunks()
    telemetry = Telemetry(chunks)
    async with Environment(url, telemetry=telemetry) as environment:
        before = memory("VmRSS")
        (PROCESS / "clear_refs").write_text("5")  # the peak is counted from here on
        async with pipeline.start(environment=environment, telemetry=telemetry) as running:
            with anyio.fail_after(120):
                while running.statistics().highest_in_flight < full:
                    await anyio.sleep(0.01)
                begun.set()
                while running.statistics().settled.get("ok", 0) < handle:
                    await anyio.sleep(0.01)
            running.stop()
            result = await running.wait()
        grown = memory("VmHWM") - before
    statistics = running.statistics()
    return {
        "highest_in_flight": statistics.highest_in_flight,
        "highest_in_flight_bytes": statistics.highest_in_flight_bytes,
        "handled": result.handled,
        "unsettled": result.unsettled,
        "error": None if result.error is None else repr(result.error),
        "records": chunks.records,
        "chunk": chunks.size,
        "buffered": chunks.buffered,
        "grown": grown,
    }


if __name__ == "__main__":
    url, stream, *limits, handle, delay = sys.argv[1:]
    print(json.dumps(anyio.run(main, url, stream, [*map(int, limits)], int(handle), float(delay))))
