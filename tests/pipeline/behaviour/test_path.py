"""The path of a message is the one that the room's page lists, in that order."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import flowstream.pipeline
from flowstream.pipeline import Batch, Message, Pipeline
from tests.support.pipelines import MemoryStream, numbers

pytestmark = pytest.mark.anyio

ROOM = Path(flowstream.pipeline.__file__).parent
MOST = 12
ASKED = {"idle", "stalled", "flush", "waiting", "handling"}
"""What a worker that has nothing to do asks of all stages: no message is there then."""


def listed() -> list[tuple[str, ...]]:
    """The files of each line of the page, in order."""
    page = flowstream.pipeline.__doc__ or ""
    lines = re.findall(r"^    ((?:[\w/]+\.py(?:, )?)+) ", page, re.MULTILINE)
    return [tuple(line.split(", ")) for line in lines]


async def test_a_message_goes_through_the_files_as_they_are_listed():
    seen: dict[str, int] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        under = code.co_filename.startswith(str(ROOM))
        if event == "call" and under and code.co_name not in ASKED:
            seen.setdefault(str(Path(code.co_filename).relative_to(ROOM)), len(seen))

    class Traced(MemoryStream):
        async def run(self, intake: Any) -> None:
            partition = intake.open(self.stream, committed=None)
            await anyio.sleep(1)  # all tasks of the run have begun
            sys.setprofile(trace)
            await partition.send(numbers(3))

        async def verify(self, stream: str, offset: int) -> None:
            sys.setprofile(None)

    pipeline = Pipeline("test", Traced([]), commit_every=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None: ...

    try:
        result = await pipeline.run()
    finally:
        sys.setprofile(None)
    assert result.settled == {"ok": 3}
    lines = listed()
    assert sum(map(len, lines)) <= MOST
    assert lines[0] == ("producer.py",)  # what a source of one's own subclasses: its code is there
    first = [min(seen[file] for file in line) for line in lines[1:]]
    assert first == sorted(first), {line: [seen.get(file) for file in line] for line in lines}
