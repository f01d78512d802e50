"""Crashed, cut and paused anywhere: no message is lost, and none is committed too early."""

from __future__ import annotations

import anyio
from hypothesis import example, given
from hypothesis import strategies as st

from flowstream import (
    Backoff,
    Batch,
    DeadLetter,
    Message,
    Pipeline,
    Retry,
    StreamProducer,
    StreamSink,
)
from flowstream.testing import Crash, Disconnect, PipelineTester
from flowstream.testing import Pause as Wait

MESSAGES = st.sampled_from(["ok", "ok", "drop", "fail", "flaky", "slow", "slow"])
MARKERS = st.sampled_from([Crash(), Crash(), Disconnect(3), Wait(0.05), Wait(1), Wait(9)])
SOURCES = st.lists(st.one_of(MESSAGES, MESSAGES, MARKERS), min_size=3, max_size=25)


def declared(workers: int, batch: int, done: list[tuple[str, int]]) -> Pipeline:
    pipeline = Pipeline(
        "any",
        StreamProducer("in"),
        retry=Retry(attempts=3, backoff=Backoff(initial=0.5)),
        on_failure=DeadLetter("dead", max_ratio=None),
        max_in_flight=8,
        commit_every=1,
    )

    @pipeline.processor(concurrency=workers, max_demand=1)
    async def handle(message: Message[str]) -> None:
        await anyio.sleep(4 if message.data == "slow" else 0.01)
        if message.data == "drop":
            message.drop()
        elif message.data == "fail" or (message.data == "flaky" and message.attempt < 3):
            message.fail("as it was told")
        message.to("store", "out")

    @pipeline.batcher("store", size=batch, batch_timeout=1)
    async def store(batch: Batch[str]) -> None:
        await anyio.sleep(0.2)
        done.extend((message.data, message.offset) for message in batch)

    pipeline.sink("out", StreamSink("out"), size=2, batch_timeout=0.3)
    return pipeline


@example(["slow", "ok", Wait(1), Crash(), "ok"], 2, 1, "asyncio")
@example(["flaky", "ok", "fail", Wait(0.05), Crash(), "slow", "drop", Wait(1)], 3, 2, "trio")
@given(SOURCES, st.integers(1, 3), st.integers(1, 4), st.sampled_from(["asyncio", "trio"]))
def test_nothing_is_lost_and_nothing_is_committed_too_early(source, workers, batch, backend):
    done: list[tuple[str, int]] = []
    tester = PipelineTester(declared(workers, batch, done), source)
    sent = [item for item in source if isinstance(item, str)]
    settled: dict[int, str] = {}
    committed = -1
    for _ in range(1 + source.count(Crash())):
        report = tester.run_sync(backend=backend)
        assert [outcome.offset for outcome in report] == list(
            range(committed + 1, committed + 1 + len(report))
        )
        settled.update((o.offset, o.status) for o in report if o.status != "open")
        after = report.committed.get("in", -1)
        assert after >= committed
        assert all(offset in settled for offset in range(after + 1))
        committed = after
        assert report.crashed or report.error is None
    assert not report.crashed
    assert committed == len(sent) - 1
    status = {"drop": "dropped", "fail": "dead_lettered"}
    assert settled == {offset: status.get(kind, "ok") for offset, kind in enumerate(sent)}
    good = {(kind, o) for o, kind in enumerate(sent) if kind not in ("drop", "fail")}
    assert set(done) == good
    assert set(tester.published("out")) == {kind.encode() for kind, _ in good}
    assert {letter.offset for letter in tester.dead_letters()} == {
        offset for offset, kind in enumerate(sent) if kind == "fail"
    }
    if Crash() not in source:
        assert len(done) == len(good) == len(tester.published("out"))
