"""What counting costs: the same work with metrics and the live page's board, and without.

Measured in seconds of CPU time, not by the clock: a few percent are lost in what else the machine
does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

from flowstream.metrics import Metrics
from flowstream.monitor import Board
from flowstream.telemetry import Telemetry
from tests.benchmarks import flowstream_side, memory_side
from tests.benchmarks.target import Target


async def memory(target: Target) -> float:
    """In memory, counted as `flowstream run --http` counts it."""
    return await _cpu(memory_side.batcher(target, _observers("memory")))


async def memory_bare(target: Target) -> float:
    return await _cpu(memory_side.batcher(target))


async def pipeline(target: Target) -> float:
    """A whole pipeline on a stream, counted as `flowstream run --http` counts it."""
    return await _cpu(flowstream_side.pipeline(target, _observers("benchmark")))


async def pipeline_bare(target: Target) -> float:
    return await _cpu(flowstream_side.pipeline(target))


def _observers(pipeline: str) -> Telemetry:
    board = Board()
    board.expect(pipeline)
    return Telemetry(Metrics(), board)


async def _cpu(work: Awaitable[float]) -> float:
    start = time.process_time()
    await work
    return time.process_time() - start
