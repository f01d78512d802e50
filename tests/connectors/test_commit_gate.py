"""A commit that meets a cancellation: it is given up before it begins, or has its outcome."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream import Backoff, Drop, FileSink, Message, Pipeline, Retry, SqliteSink
from flowstream.connectors import commit_gate, complete_files
from flowstream.connectors.commit_gate import CommitGate, GivenUp, OutcomeOpen, in_thread
from flowstream.errors import OutcomeUnknown
from tests.support.pipelines import MemoryStream

pytestmark = pytest.mark.anyio
COUNT = 5


class Commit:
    """A function for a thread, and its call is cancelled before it enters its gate, or after."""

    def __init__(self, *, cancelled_within: bool) -> None:
        self.gate = CommitGate()
        self.begin, self.end = threading.Event(), threading.Event()
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._within = cancelled_within
        self._scope = anyio.CancelScope()

    def __call__(self) -> str:
        try:
            if not self._within:
                anyio.from_thread.run_sync(self._scope.cancel)
                self.begin.wait(30)
            self.gate.enter()
            if self._within:
                anyio.from_thread.run_sync(self._scope.cancel)
            self.end.wait(30)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()
        return "committed"

    async def call(self) -> str | None:
        """What the call returns; None if it is given up."""
        with self._scope:
            limiter = anyio.CapacityLimiter(10)
            return await in_thread(self, give_up=self.gate.close, limiter=limiter)
        return None


async def test_a_commit_that_has_not_begun_is_given_up_and_never_happens() -> None:
    commit = Commit(cancelled_within=False)
    assert await commit.call() is None
    commit.begin.set()
    await anyio.to_thread.run_sync(commit.ended.wait, 30)
    assert isinstance(commit.error, GivenUp)


@pytest.mark.medium
async def test_a_commit_that_has_begun_has_its_outcome() -> None:
    commit = Commit(cancelled_within=True)
    threading.Timer(0.2, commit.end.set).start()
    with anyio.fail_after(30):
        assert await commit.call() == "committed"


async def test_a_commit_without_an_answer_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_gate, "PATIENCE", 0.05)
    commit = Commit(cancelled_within=True)
    with anyio.fail_after(30), pytest.raises(OutcomeOpen, match=r"in 0\.05 s"):
        await commit.call()
    commit.end.set()


class HeldCommits:
    """Holds the commits of batches once they have begun; those of the sink's own tables pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, until_timeout: bool) -> None:
        """Each is held until its batch has timed out, or all of them until `release` is set."""
        self.release = threading.Event()
        self.begins = False
        enter, close = CommitGate.enter, CommitGate.close

        def held(gate: CommitGate) -> None:
            enter(gate)
            if self.begins:
                self.release.wait(30)

        def timed_out(gate: CommitGate) -> bool:
            given_up = close(gate)
            if until_timeout and not given_up:
                self.release.set()
            return given_up

        monkeypatch.setattr(CommitGate, "enter", held)
        monkeypatch.setattr(CommitGate, "close", timed_out)


def sink_of(kind: str, folder: Path) -> Any:
    if kind == "files":
        return FileSink(folder / "files", format="ndjson")
    return SqliteSink(folder / "rows.db", "rows", columns={"n": int}, create=True)


def pipeline_of(stream: MemoryStream, sink: Any, commits: HeldCommits | None = None) -> Pipeline:
    """Attempts that run out of time before their commit are repeated, however slow the machine."""
    retry = Retry(attempts=100, backoff=Backoff(initial=0.01, maximum=0.01))
    pipeline = Pipeline("gate", stream, retry=retry, on_failure=Drop())

    @pipeline.processor
    async def decoded(message: Message[dict[str, int]]) -> None:
        if commits is not None:
            commits.begins = True

    pipeline.sink("rows", sink, size=COUNT, timeout=0.1)
    return pipeline


async def written(kind: str, folder: Path) -> list[int]:
    """The numbers in complete files, or in committed rows."""
    return await anyio.to_thread.run_sync(read, kind, folder)


def read(kind: str, folder: Path) -> list[int]:
    if kind == "files":
        files = complete_files(folder / "files")
        lines = [line for file in files for line in Path(file).read_text().splitlines()]
        return sorted(int(line.strip('{"n: }')) for line in lines)
    with closing(sqlite3.connect(folder / "rows.db")) as database:
        return [n for (n,) in database.execute("SELECT n FROM rows ORDER BY n")]


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["files", "sqlite"])
async def test_a_timeout_within_a_commit_gives_up_nothing_that_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = MemoryStream([b'{"n": %d}' % n for n in range(COUNT)])
    commits = HeldCommits(monkeypatch, until_timeout=True)
    pipeline = pipeline_of(stream, sink_of(kind, tmp_path), commits)
    with anyio.fail_after(60):
        result = await pipeline.run()
    assert commits.release.is_set()
    assert await written(kind, tmp_path) == [*range(COUNT)]
    assert result.settled == {"ok": COUNT}


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["files", "sqlite"])
async def test_a_commit_that_does_not_answer_ends_the_run_and_the_next_finds_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = MemoryStream([b'{"n": %d}' % n for n in range(COUNT)])
    with monkeypatch.context() as patch:
        patch.setattr(commit_gate, "PATIENCE", 0.05)
        commits = HeldCommits(patch, until_timeout=False)
        pipeline = pipeline_of(stream, sink_of(kind, tmp_path), commits)
        with anyio.fail_after(60), pytest.raises(OutcomeUnknown, match="the next run"):
            await pipeline.run()
    assert "orders" not in stream.stored
    assert await written(kind, tmp_path) == []
    commits.release.set()
    with anyio.fail_after(60):
        while not await written(kind, tmp_path):  # the commit happens after all
            await anyio.sleep(0.01)
        await pipeline_of(stream, sink_of(kind, tmp_path)).run()
    assert await written(kind, tmp_path) == [*range(COUNT)]
    assert stream.stored["orders"] == COUNT - 1
