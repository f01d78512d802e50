"""A broker in memory: its streams, its faults and its clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from flowstream import Message, Pipeline, StreamProducer
from flowstream.testing import Crash, Crashed, MemoryEnvironment

pytestmark = pytest.mark.anyio


async def test_a_crash_outside_of_a_tester_is_an_error():
    pipeline = Pipeline("any", StreamProducer("any"))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None: ...

    with pytest.raises(Crashed):
        await pipeline.run(environment=MemoryEnvironment({"any": [b"1", Crash()]}))


async def test_timestamps_are_now_unless_they_are_given():
    memory = MemoryEnvironment()
    memory.append("any", [b"1"])
    memory.append("any", [b"2"], timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    memory.append("any", [b"3"], timestamp=7)
    times = [memory.stream("any").chunk_at(offset).timestamp for offset in range(3)]
    assert abs(times[0] - time.time() * 1000) < 60_000
    assert times[1:] == [1_577_836_800_000, 7]
