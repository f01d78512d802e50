"""What the log says of failures: the first of a reason, then a line a minute."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.pipeline import (
    Backoff,
    Drop,
    Failure,
    FailurePolicy,
    IterableProducer,
    Message,
    OpenPolicy,
    Pipeline,
    Retry,
)
from flowstream.pipeline.state.reasons import (
    INTERVAL,
    KINDS_OF_ERROR,
    OTHER,
    Kind,
    Notices,
)
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of


class Bury(FailurePolicy):
    """Keeps what failed in a list: dead letters without a broker."""

    def __init__(self, outcome: str = "dead_lettered") -> None:
        self.outcome = outcome
        self.buried: list[Failure] = []

    def writes(self) -> Sequence[str]:
        return ["orders.dead"]

    @asynccontextmanager
    async def open_policy(self, context: Any) -> Any:
        bury = self

        class Burying(OpenPolicy):
            async def handle(self, failures: Sequence[Failure]) -> str:
                bury.buried += failures
                return bury.outcome

        yield Burying()


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """The messages of a level; not that a busy machine let the event loop wait."""
    records = [record for record in caplog.records if record.levelno == level]
    return [text for record in records if "the event loop" not in (text := record.getMessage())]


@pytest.mark.medium
async def test_the_log_has_the_first_of_a_reason_and_then_a_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "flowstream.pipeline")
    pipeline = pipeline_of(
        MemoryStream(numbers(10), slices=[10], endless=True),
        retry=Retry(10_000, Backoff(initial=1, factor=1, jitter=0)),
    )

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[dict]) -> None:
        raise ConnectionError(f"order {n_of(message)} refused")

    async with pipeline.start() as running:
        await anyio.sleep(150.5)
        running.abort()
        await running.wait()
    first, *more = lines(caplog)
    assert first == (
        "pipeline 'test': process failed in 'handle' at orders@0: ConnectionError: order 0 refused"
    )
    like = (
        "more like it in the last minute: process failed in 'handle': "
        "ConnectionError: order … refused"
    )
    assert [line.partition("more like it")[0] for line in more] == [
        "pipeline 'test': 599 ", "pipeline 'test': 600 ", "pipeline 'test': 310 ",
    ]  # fmt: skip
    assert all(line.endswith(like) for line in more)
    (trace,) = lines(caplog, logging.DEBUG)
    assert "Traceback" in trace
    assert "ConnectionError: order 0 refused" in trace
    records = [r for r in caplog.records if r.levelno == logging.WARNING]
    fields = ("pipeline", "stage", "phase", "error", "stream", "offset")
    assert [vars(records[0])[name] for name in fields] == [
        "test", "processor", "process", "ConnectionError", "orders", 0,
    ]  # fmt: skip
    assert vars(records[1])["count"] == 599


@pytest.mark.medium
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Bury(), "dead-lettered into 'orders.dead'"),
        (Drop(), "discarded"),
    ],
    ids=["dead letter", "drop"],
)
async def test_what_a_policy_takes_away_is_never_silent(
    policy: FailurePolicy, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of(MemoryStream(numbers(500), slices=[7]), on_failure=policy)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        await anyio.sleep(0.01)
        message.fail("amount must be positive")

    await pipeline.run()
    told = lines(caplog)
    assert told == [
        "pipeline 'test': process failed in 'handle' at orders@0: amount must be positive",
        f"pipeline 'test': {said}: orders@0: amount must be positive",
        "pipeline 'test': 499 more like it in the last minute: process failed in 'handle': "
        "amount must be positive",
        f"pipeline 'test': 499 more {said} in the last minute: process failed in 'handle': "
        "amount must be positive",
    ]


@pytest.mark.slow
async def test_reasons_that_never_repeat_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = ["".join(chr(97 + int(digit)) for digit in f"{n:05}") for n in range(2_000)]
    pipeline = Pipeline("test", IterableProducer([word.encode() for word in words]),
                        on_failure=Drop())  # fmt: skip

    @pipeline.processor
    async def handle(message: Message[str]) -> None:
        message.fail(f"{message.data} is no customer")

    result = await pipeline.run()
    assert len(result.reasons) == KINDS_OF_ERROR + 1
    assert result.reasons[-1].text == OTHER
    assert sum(reason.attempts for reason in result.reasons) == 2_000
    assert sum(reason.discarded for reason in result.reasons) == 2_000
    assert len(lines(caplog)) <= 4 * (KINDS_OF_ERROR + 1)


def test_notices_are_due_once_a_minute() -> None:
    kind = Kind(("s", "p", "E", "t"), "t", 0.0)
    notices = Notices()
    assert notices.add(kind, "failed", 5, 100.0)
    assert notices.next == 100.0 + INTERVAL
    assert not notices.add(kind, "failed", 2, 130.0)
    assert notices.due(159.9) == []
    assert notices.due(160.0) == [(kind, "failed", 6)]
    assert notices.due(161.0) == []
    assert not notices.add(kind, "failed", 1, 1000.0)
    assert notices.due(1000.0) == [(kind, "failed", 1)]
    assert notices.add(kind, "discarded", 1, 1000.0), "what became of them is another notice"
    assert notices.next is None
