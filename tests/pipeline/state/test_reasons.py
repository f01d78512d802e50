"""Why attempts fail is counted by reason and logged, whatever becomes of the messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline import (
    Backoff,
    Batch,
    Drop,
    Failure,
    FailurePolicy,
    Halt,
    IterableProducer,
    Message,
    OpenPolicy,
    Pipeline,
    Reason,
    Retry,
    RunResult,
    Statistics,
)
from flowstream.pipeline.state.reasons import (
    KEPT,
    KINDS,
    KINDS_OF_ERROR,
    OTHER,
    Reasons,
)
from flowstream.telemetry import AttemptFailed, Failed, HandlerDone, Retried
from tests.support.pipelines import MemoryStream, Recorder, n_of, numbers, pipeline_of, when


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


def fates(reason: Reason) -> dict[str, int]:
    names = ("attempts", "retried", "dead_lettered", "discarded", "halted")
    return {name: count for name in names if (count := getattr(reason, name))}


def counted(found: RunResult | Statistics) -> dict[tuple[str, str, str, str], dict[str, int]]:
    return {(r.stage, r.phase, r.error, r.text): fates(r) for r in found.reasons}


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """The messages of a level; not that a busy machine let the event loop wait."""
    records = [record for record in caplog.records if record.levelno == level]
    return [text for record in records if "the event loop" not in (text := record.getMessage())]


@pytest.mark.medium
async def test_a_batcher_that_cannot_reach_its_store_is_seen_at_once() -> None:
    """2,200 failed attempts, and not a message that has failed for good: the reasons tell."""
    pipeline = pipeline_of(
        MemoryStream(numbers(220), slices=[220], endless=True),
        retry=Retry(100, Backoff(initial=1, factor=1, jitter=0)),
    )

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        """Leaves it as it is."""

    @pipeline.batcher("load", size=220, batch_timeout=0.1)
    async def load(batch: Batch[dict]) -> None:
        raise ConnectionError("the warehouse is away")

    async with pipeline.start() as running:
        await when(lambda: running.statistics().failed_attempts >= 2_200)
        statistics = running.statistics()
        running.abort()
        result = await running.wait()
    (reason,) = statistics.reasons
    assert statistics.failed == 0
    assert (reason.stage, reason.phase, reason.error) == ("load", "batch", "ConnectionError")
    assert reason.text == "ConnectionError: the warehouse is away"
    assert fates(reason) == {"attempts": 2_200, "retried": 2_200}
    assert (reason.stream, reason.offset, reason.sample) == ("orders", 0, '{"n": 0}')
    assert reason.traceback is not None
    assert 'raise ConnectionError("the warehouse is away")' in reason.traceback
    assert reason.first <= reason.last
    assert result.reasons[0].text == reason.text


@pytest.mark.parametrize(
    ("policy", "fate"),
    [
        (Drop(), "discarded"),
        (Halt(), "halted"),
        (Bury(), "dead_lettered"),
        (Bury("dropped"), "discarded"),
        (Bury("ok"), "discarded"),
    ],
    ids=["drop", "halt", "dead letter", "own: dropped", "own: ok"],
)
async def test_what_became_of_them(policy: FailurePolicy, fate: str) -> None:
    pipeline = pipeline_of(3, retry=Retry(2, Backoff(initial=0)), on_failure=policy)

    @pipeline.processor
    async def check(message: Message[dict]) -> None:
        if n_of(message) == 1:
            message.fail("amount must be positive", retry=False)
        if n_of(message) == 2:
            raise KeyError("amount")

    async with pipeline.start() as running:
        result = await running.wait()
    found = counted(result)
    given = found["processor", "process", "", "amount must be positive"]
    assert given == {"attempts": 1, fate: 1}
    if fate != "halted":
        raised = found["processor", "process", "KeyError", "KeyError: 'amount'"]
        assert raised == {"attempts": 2, "retried": 1, fate: 1}


async def test_every_phase_has_its_reasons(threads: None) -> None:
    def size(message: Message[dict], state: int) -> Any:
        if n_of(message) == 4:
            raise LookupError("no weight")
        return True, state

    def partition(message: Message[dict]) -> int:
        if n_of(message) == 5:
            raise LookupError("no region")
        return n_of(message)

    bodies = [b"{broken", *numbers(8)[1:]]
    pipeline = Pipeline(
        "test", MemoryStream(bodies, slices=[1]), on_failure=Drop(), partition_by=partition
    )

    @pipeline.prepare
    def prepare(messages: list[Message[dict]]) -> None:
        if n_of(messages[0]) == 6:
            raise LookupError("no such table")

    @pipeline.processor(timeout=5, max_demand=1)
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 1:
            await anyio.sleep_forever()
        if n_of(message) == 2:
            message.to("mars")
        if n_of(message) == 7:
            message.fail(PermissionError("not yours"))

    @pipeline.batcher(size=(0, size))
    def load(batch: Batch[dict]) -> None:
        if n_of(batch.messages[0]) == 3:
            batch.messages[0].fail("refused")

    @pipeline.batcher("audit", size=1)
    def audit(batch: Batch[dict]) -> None:
        """Gets nothing."""

    result = await pipeline.run()
    found = counted(result)
    once = {"attempts": 1, "discarded": 1}
    assert found == {
        ("decode", "decode", "PayloadError", next(r.text for r in result.reasons
                                                  if r.phase == "decode")): once,
        ("processor", "process", "HandlerTimeout",
         "HandlerTimeout: processor took longer than 5 s"): once,
        ("processor", "process", "",
         "there is no batcher named 'mars'; there are 'default', 'audit'"): once,
        ("default", "batch", "", "refused"): once,
        ("processor", "process", "LookupError",
         "partition_by raised LookupError: no region"): once,
        ("default", "batch", "LookupError",
         "the batch key or size function: LookupError: no weight"): once,
        ("processor", "prepare", "LookupError", "LookupError: no such table"): once,
        ("processor", "process", "PermissionError", "not yours"): once,
    }  # fmt: skip


async def test_commits_and_on_failed_that_fail_are_reasons_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Forgetful(MemoryStream):
        async def commit(self, stream: str, offset: int) -> None:
            if len(self.commits) < 3:
                self.commits.append((stream, offset))
                raise OSError("the disk is full")
            await super().commit(stream, offset)

    source = Forgetful(numbers(10), endless=True)
    pipeline = pipeline_of(source, on_failure=Drop(), commit_interval=1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise ValueError("no")

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        raise RuntimeError("itself")

    async with pipeline.start() as running:
        await when(lambda: len(source.commits) > 3)
        running.stop()
        result = await running.wait()
    found = counted(result)
    assert found["committer", "commit", "OSError", "OSError: the disk is full"] == {"attempts": 3}
    assert found["on_failed", "on_failed", "RuntimeError", "RuntimeError: itself"] == {
        "attempts": 10
    }
    assert sum("on_failed raised for" in line for line in lines(caplog, logging.ERROR)) == 1
    assert sum("commit of orders@9 failed" in line for line in lines(caplog)) == 1
    assert (
        "pipeline 'test': 2 more like it in the last minute: commit failed in 'committer': "
        "OSError: the disk is full" in lines(caplog)
    )


async def test_a_source_that_crashes_is_a_reason() -> None:
    def numbers_and_an_end() -> Any:
        yield b"1"
        raise OSError("the file ends here")

    pipeline = Pipeline("test", IterableProducer(numbers_and_an_end()))

    @pipeline.processor
    async def handle(message: Message[bytes]) -> None:
        """Leaves it as it is."""

    async with pipeline.start() as running:
        result = await running.wait()
    (reason,) = result.reasons
    assert (reason.stage, reason.phase, reason.error) == ("producer", "crash", "OSError")
    assert (reason.stream, reason.offset) == (None, None)


async def test_events_tell_reasons_and_never_fail() -> None:
    recorder = Recorder()
    pipeline = pipeline_of(2, retry=Retry(2, Backoff(initial=0)), on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 0:
            message.fail("order 17 unknown")
        else:
            raise ValueError("no")

    await pipeline.run(telemetry=recorder.telemetry)
    for kind in (AttemptFailed, Failed, Retried):
        told = {(e.stage, e.phase, e.error, e.reason) for e in recorder.of(kind)}
        assert told == {
            ("processor", "process", "order … unknown", "order 17 unknown"),
            ("processor", "process", "ValueError", "ValueError: no"),
        }
    assert sum(event.messages for event in recorder.of(AttemptFailed)) == 4


@pytest.mark.medium
async def test_an_event_is_for_a_slice_and_not_for_each_of_its_messages() -> None:
    recorder = Recorder()
    pipeline = pipeline_of(MemoryStream(numbers(1_000), slices=[1_000]), on_failure=Drop())

    @pipeline.processor(concurrency=2)
    async def handle(message: Message[dict]) -> None:
        message.fail(f"order {n_of(message)} unknown")

    await pipeline.run(telemetry=recorder.telemetry)
    assert sum(event.messages for event in recorder.of(AttemptFailed)) == 1_000
    assert len(recorder.of(AttemptFailed)) < 20


async def test_what_is_shown_of_bodies_is_masked_where_asked() -> None:
    async def sample_of(mask: Callable[[Message[Any]], Any] | None, body: Any) -> str | None:
        pipeline = Pipeline("test", IterableProducer([body]), on_failure=Drop(), mask=mask)

        @pipeline.processor
        async def handle(message: Message) -> None:
            message.fail("no")

        (reason,) = (await pipeline.run()).reasons
        return reason.sample

    def raising(message: Message[Any]) -> str:
        raise KeyError("card")

    assert await sample_of(None, b'{"card":  "4711"}') == '{"card": "4711"}'
    assert await sample_of(None, {"card": 4711}) == "{'card': 4711}"
    assert await sample_of(None, b"\x00\xff") == "\\x00\\xff"
    assert await sample_of(None, b"amqp://me:secret@host") == "amqp://me:***@host"
    assert len(await sample_of(None, b"x" * 10_000_000) or "") == 1000
    assert await sample_of(lambda message: None, b"4711") is None
    assert await sample_of(lambda message: message.raw[-2:], b"4711") == "11"
    assert await sample_of(lambda message: {"card": "**"}, b"4711") == "{'card': '**'}"
    assert await sample_of(raising, b"4711") == "mask raised KeyError: 'card'"


async def test_branches_of_a_message_fail_each_for_itself() -> None:
    pipeline = pipeline_of(1, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        message.to("a", "b")

    for name in ("a", "b"):

        @pipeline.batcher(name)
        async def load(batch: Batch[dict]) -> None:
            raise OSError("full")

    result = await pipeline.run()
    assert {r.stage: fates(r) for r in result.reasons} == {
        "a": {"attempts": 1, "discarded": 1},
        "b": {"attempts": 1, "discarded": 1},
    }


def test_texts_that_differ_in_numbers_and_ids_are_one_kind() -> None:
    reasons = Reasons({})
    for text in ("order 17 unknown after 5 s", "order 18 unknown after 5 s", "order 9 unknown"):
        reasons.of("load", "batch", "", text, 1.0).count("attempts", 1)
    assert [(reason.text, reason.attempts) for reason in reasons.snapshot()] == [
        ("order … unknown after 5 s", 2),
        ("order 9 unknown", 1),
    ]


@pytest.mark.parametrize("tail", ["ネットワーク " * 80, "x" * 4000, "7 " * 900])
def test_long_texts_that_differ_in_numbers_are_one_kind(tail: str) -> None:
    reasons = Reasons({})
    for order in (7, 18, 1234, 10**40):
        reasons.of("load", "batch", "", f"order {order} is invalid: {tail}", 1.0).count(
            "attempts", 1
        )
    (reason,) = reasons.snapshot()
    assert reason.attempts == 4
    assert reason.text.startswith("order … is invalid: ")
    assert len(reason.text) <= 300


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.text("abc 1", max_size=4), st.integers(1, 3)),
        max_size=200,
    )
)
def test_nothing_is_counted_twice_or_lost(failed: list[tuple[str, str, int]]) -> None:
    reasons = Reasons({})
    for at, (error, text, count) in enumerate(failed):
        kind = reasons.of("load", "batch", error, text, at * KEPT / 20)
        kind.count("attempts", count)
        kind.count("retried", count)
    found = reasons.snapshot()
    assert sum(reason.attempts for reason in found) == sum(count for *_, count in failed)
    assert sum(reason.retried for reason in found) == sum(count for *_, count in failed)
    assert len(found) <= KINDS + 1
    kept = [reason.attempts for reason in found if reason.text != OTHER]
    assert kept == sorted(kept, reverse=True)
    assert all(reason.text != OTHER for reason in found[:-1])


def test_a_kind_that_is_over_makes_room_and_is_counted_with_the_others() -> None:
    reasons = Reasons({})
    old = reasons.of("s", "p", "E", "word", 0.0)
    old.count("attempts", 1)
    for n in range(KINDS_OF_ERROR - 1):
        reasons.of("s", "p", "E", "word " * (n + 2), KEPT).count("attempts", 1)
    assert reasons.of("s", "p", "E", "new", KEPT - 1).key[-1] == OTHER
    new = reasons.of("s", "p", "E", "new", KEPT + 1)
    new.count("attempts", 1)
    old.count("retried", 1)  # its kind was given up meanwhile
    found = {reason.text: reason for reason in reasons.snapshot()}
    assert (found["new"].attempts, found[OTHER].attempts, found[OTHER].retried) == (1, 1, 1)
    assert found[OTHER].first == 0.0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_waits_behind_a_failure_is_not_counted_as_an_attempt(concurrency: int) -> None:
    recorder, calls = Recorder(), 0
    pipeline = pipeline_of(50, retry=Retry(attempts=2, backoff=Backoff(0.0)), on_failure=Drop())

    @pipeline.processor(concurrency=concurrency)
    async def check(message: Message[dict]) -> None:
        nonlocal calls
        calls += 1
        if n_of(message) % 10 == 0:
            raise ValueError("no tens")

    async with pipeline.start(telemetry=recorder.telemetry) as running:
        await running.wait()
        (stage,) = running.statistics().stages
    assert stage.handled == calls == 55
    assert sum(done.messages for done in recorder.of(HandlerDone)) == calls
