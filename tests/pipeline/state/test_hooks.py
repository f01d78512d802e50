"""Hooks see all that a run does, each message once, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flowstream.pipeline import Batch, Drop, Failure, Message, Retry, RunHooks
from flowstream.pipeline.running.run import Run
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = pytest.mark.anyio


class Seen(RunHooks):
    def __init__(self) -> None:
        self.tried: list[int] = []
        self.batches: list[tuple[int, str]] = []
        self.failures: list[int] = []
        self.outcomes: dict[int, str] = {}
        self.stored: dict[str, int] = {}
        self.streams: dict[str, int] = {}

    def resumed(self, stream: str, committed: int) -> None:
        self.streams[stream] = committed

    def attempted(self, messages: Sequence[Message[Any]]) -> None:
        self.tried += map(n_of, messages)

    def batch_begins(self, batch: Batch[Any]) -> Any:
        return batch.size

    def batch_ended(self, token: Any, error: BaseException | None) -> None:
        self.batches.append((token, type(error).__name__))

    def failed(self, failure: Failure) -> None:
        self.failures.append(n_of(failure.message))

    def settled(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        for message in messages:
            assert message.offset not in self.outcomes
            self.outcomes[message.offset] = outcome

    def committed(self, stream: str, offset: int) -> None:
        self.stored[stream] = offset


async def test_hooks_see_every_message_once_and_every_attempt() -> None:
    stream = MemoryStream(numbers(10), slices=[4])
    stream.stored["orders"] = 1
    pipeline = pipeline_of(stream, on_failure=Drop(), retry=Retry(2))

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None:
        if n_of(message) == 5:
            message.drop("five")
        if n_of(message) == 7:
            raise ValueError("seven")

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict[str, int]]) -> None: ...

    seen = Seen()
    run = Run(pipeline.declaration, url=None, environment=None, telemetry=None, tune_gc=False,
              hooks=seen)  # fmt: skip
    await run.main()
    assert run.result().error is None
    assert seen.streams == {"orders": 1}
    assert sorted(seen.tried) == [2, 3, 4, 5, 6, 7, 7, 8, 9]
    assert seen.failures == [7]
    assert {n for n, outcome in seen.outcomes.items() if outcome == "ok"} == {2, 3, 4, 6, 8, 9}
    assert (seen.outcomes[5], seen.outcomes[7]) == ("dropped", "discarded")
    assert sum(size for size, _ in seen.batches) == 6
    assert {error for _, error in seen.batches} == {"NoneType"}
    assert seen.stored == {"orders": 9}


async def test_a_run_that_is_to_end_as_killed_commits_nothing() -> None:
    class Killed(RunHooks):
        @property
        def crashed(self) -> bool:
            return True

    stream = MemoryStream(numbers(10))
    pipeline = pipeline_of(stream)

    @pipeline.processor
    async def handle(message: Message[dict[str, int]]) -> None: ...

    run = Run(pipeline.declaration, url=None, environment=None, telemetry=None, tune_gc=False,
              hooks=Killed())  # fmt: skip
    await run.main()
    assert run.result().settled == {"ok": 10}
    assert (stream.commits, stream.verified) == ([], [])
