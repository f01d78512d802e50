"""Handlers in worker processes: whatever they return, raise or do, only what it concerns fails.

In real time, because virtual time would not wait for another process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream.errors import Halted, HandlerNotImported
from flowstream.pipeline import Backoff, Batch, Drop, Failure, Message, Pipeline, Retry
from tests.pipeline import computing, slow_to_import
from tests.pipeline.computing import DOINGS, load, process
from tests.support.callbacks import Queue, Told
from tests.support.pipelines import MemoryStream, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # each starts processes that import all


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def doing(*what: str) -> list[bytes]:
    return [json.dumps({"do": each}).encode() for each in what]


async def keep(message: Message[dict]) -> None:
    """Leaves the message as it is."""


async def settled_by(pipeline: Pipeline) -> tuple[dict[str, int], dict[str, str]]:
    """What was settled, and the reasons of failures by what their messages were to do."""
    failures: list[Failure] = []
    pipeline.on_failed(lambda failure: failures.append(failure))
    with anyio.fail_after(60):
        result = await pipeline.run()
    reasons = {json.loads(failure.message.raw)["do"]: failure.reason for failure in failures}
    return dict(result.settled), reasons


@pytest.mark.parametrize("stage", ["processor", "batcher"])
async def test_what_a_process_raised_keeps_its_name_and_traceback(stage: str) -> None:
    """Also where the exception itself cannot come back."""
    bodies = doing("raise what cannot be pickled")
    pipeline = pipeline_of(MemoryStream(bodies), on_failure=Drop())
    if stage == "processor":
        pipeline.processor(processes=True)(process)
    else:
        pipeline.processor(keep)
        pipeline.batcher(size=1, processes=True)(load)
    with anyio.fail_after(60):
        (reason,) = (await pipeline.run()).reasons
    assert (reason.error, reason.text) == ("Unpicklable", "Unpicklable: 1")
    assert reason.traceback is not None
    assert "in a worker process" in reason.traceback
    assert "raise error" in reason.traceback


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_only_the_messages_concerned_fail(concurrency: int) -> None:
    well = {"nothing", "number", "itself", "few", "many"}  # a list is data like any other
    each = [what for what in DOINGS if what != "hang"]
    pipeline = pipeline_of(MemoryStream(doing(*each, *["nothing"] * 20)), on_failure=Drop())
    pipeline.processor(concurrency=concurrency, processes=True)(process)
    settled, reasons = await settled_by(pipeline)
    assert set(reasons) == set(each) - well
    assert settled == {"ok": len(well) + 20, "discarded": len(each) - len(well)}
    assert "another message" in reasons["foreign"]
    assert "not awaited; a decorator of an async def must be" in reasons["coroutine"]
    assert "not awaited" in reasons["generator"]
    assert reasons["raise"] == "ValueError: no"
    assert reasons["exit"] == "SystemExit: 3"
    assert reasons["raise what comes back as text"] == "ComesBackAsText"


async def test_what_does_not_come_back_fails_alone_and_nothing_is_handled_twice(
    tmp_path: Path,
) -> None:
    done = tmp_path / "done"
    what = ["note", "raise what comes back as text", "data that does not come back", "note"]
    bodies = [json.dumps({"do": each, "file": str(done)}).encode() for each in what]
    pipeline = pipeline_of(MemoryStream(bodies), on_failure=Drop())
    pipeline.processor(processes=True)(process)
    settled, reasons = await settled_by(pipeline)
    assert settled == {"ok": 2, "discarded": 2}
    assert set(reasons) == {*what} - {"note"}
    assert done.read_text() == "xx"


async def test_what_a_handler_decides_comes_back() -> None:
    told = Told()
    got: dict[str, list[int]] = {"default": [], "other": []}
    bodies = doing("nothing", "fail", "drop", "route", "settle", "number")
    pipeline = Pipeline("test", Queue(bodies, told), on_failure=Drop())
    pipeline.processor(processes=True)(process)
    for name in got:

        @pipeline.batcher(name, size=10)
        async def store(batch: Batch[Any]) -> None:
            got[batch.batcher].extend(message.offset for message in batch)
            if batch.batcher == "other":
                assert batch.key == 3
            acks.extend(message.ack_options for message in batch if message.ack_options)

    acks: list[Any] = []
    settled, reasons = await settled_by(pipeline)
    assert settled == {"ok": 4, "dropped": 1, "discarded": 1}
    assert reasons == {"fail": "wanted"}
    assert got == {"default": [0, 4, 5], "other": [3]}
    assert acks == [{"requeue": True}]
    assert sorted(told.told) == list(range(6))


async def test_what_a_handler_changes_inside_of_its_data_comes_back() -> None:
    """As from a thread: it changed a copy, and the change was lost without a word."""
    got: list[Any] = []
    pipeline = pipeline_of(MemoryStream([b'{"do": "change", "seen": []}'] * 3), on_failure=Drop())
    pipeline.processor(processes=True)(process)

    @pipeline.batcher(size=3)
    async def store(batch: Batch[dict]) -> None:
        got.extend(data["seen"] for data in batch.data)

    assert await settled_by(pipeline) == ({"ok": 3}, {})
    assert got == [[0], [1], [2]]


@pytest.mark.parametrize("stage", ["processor", "batcher"])
async def test_programs_that_a_handler_starts_read_no_calls_and_write_into_no_answers(
    stage: str,
) -> None:
    pipeline = pipeline_of(MemoryStream(doing(*["programs", "nothing"] * 2)), on_failure=Drop())
    if stage == "processor":
        pipeline.processor(processes=True, max_demand=1)(process)
    else:
        pipeline.processor(keep)
        pipeline.batcher(size=1, processes=True)(load)
    assert await settled_by(pipeline) == ({"ok": 4}, {})


async def test_batch_handlers_fail_their_batch_alone() -> None:
    each = [what for what in DOINGS if what != "hang"]
    bodies = [body for what in each for body in doing(what, what)]
    pipeline = pipeline_of(MemoryStream(bodies), on_failure=Drop())
    pipeline.processor(keep)
    pipeline.batcher(size=2, processes=True, concurrency=2)(load)
    settled, reasons = await settled_by(pipeline)
    well = {"nothing", "itself"}
    assert set(reasons) == set(each) - well
    assert settled == {"ok": 4, "discarded": 2 * (len(each) - 2)}
    assert "it returns nothing" in reasons["few"]


async def test_a_message_that_a_batch_handler_routes_fails_and_a_routed_one_does_not() -> None:
    pipeline = pipeline_of(MemoryStream(doing("nothing", "route")), on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict[str, Any]]) -> None:
        message.to("default", key=3)

    pipeline.batcher(size=1, processes=True)(load)
    settled, reasons = await settled_by(pipeline)
    assert settled == {"ok": 1, "discarded": 1}
    assert "call it in a processor" in reasons["route"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("stage", ["processor", "load"])
async def test_a_process_that_hangs_is_killed_and_starting_one_is_no_time_of_the_handlers(
    stage: str,
) -> None:
    pipeline = pipeline_of(MemoryStream(doing("nothing", "hang", "nothing")), on_failure=Drop())
    if stage == "processor":
        pipeline.processor(processes=True, timeout=slow_to_import.TIMEOUT)(slow_to_import.process)
    else:
        pipeline.processor(keep)
        batcher = pipeline.batcher("load", size=1, processes=True, timeout=slow_to_import.TIMEOUT)
        batcher(slow_to_import.load)
    settled, reasons = await settled_by(pipeline)
    assert settled == {"ok": 2, "discarded": 1}
    assert reasons == {"hang": f"HandlerTimeout: {stage} took longer than 1 s"}


async def test_ctrl_c_at_a_terminal_reaches_worker_processes_and_changes_nothing() -> None:
    pids: list[int] = []
    source = MemoryStream(doing("slow", "slow", "slow", "number"), endless=True)
    pipeline = pipeline_of(source)
    pipeline.processor(processes=True, max_demand=1)(process)

    @pipeline.batcher(size=1)
    async def store(batch: Batch[Any]) -> None:
        if batch.data[0] != 7:
            pids.append(batch.data[0])
            os.kill(batch.data[0], signal.SIGINT)

    async with pipeline.start() as running:
        with anyio.fail_after(60):
            while running.statistics().settled != {"ok": 4}:
                await anyio.sleep(0.05)
        running.stop()
        assert (await running.wait()).error is None
    assert len(set(pids)) == 1


async def test_a_stage_with_processes_is_resized() -> None:
    pids: set[int] = set()
    pipeline = pipeline_of(MemoryStream(doing(*["slow"] * 2000)), max_in_flight=20)
    pipeline.processor(concurrency=2, processes=True)(process)

    @pipeline.batcher(size=1)
    async def store(batch: Batch[Any]) -> None:
        pids.update(batch.data)

    async with pipeline.start() as running:
        running.resize("processor", 3)
        with anyio.fail_after(60):
            while len(pids) < 3:
                await anyio.sleep(0.05)


def killing(*what: str, file: Path) -> list[bytes]:
    return [json.dumps({"do": each, "file": str(file)}).encode() for each in what]


@pytest.mark.parametrize("stage", ["processor", "load"])
async def test_a_process_that_is_killed_has_a_name_a_reason_and_another_attempt(
    stage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a kernel does that is short of memory: the first attempt dies, the second one does not."""
    backoff = Backoff(initial=0.01)
    source = MemoryStream(killing("killed once", file=tmp_path / "died"))
    pipeline = pipeline_of(source, retry=Retry(attempts=2, backoff=backoff))
    if stage == "processor":
        pipeline.processor(processes=True)(process)
    else:
        pipeline.processor(keep)
        pipeline.batcher("load", size=1, processes=True)(load)
    with anyio.fail_after(60):
        result = await pipeline.run()
    assert (dict(result.settled), result.retried) == ({"ok": 1}, 1)
    (reason,) = result.reasons
    assert (reason.error, reason.attempts, reason.retried) == ("WorkerDied", 1, 1)
    (record,) = (each for each in caplog.records if "pid" in vars(each))
    text = record.getMessage()
    assert f"a worker process of {stage!r} was killed by signal 9 (SIGKILL): the kernel" in text
    assert "this attempt of it has failed" in text
    assert vars(record)["stage"] == stage


async def test_without_another_attempt_the_death_is_the_reason(tmp_path: Path) -> None:
    pipeline = pipeline_of(MemoryStream(killing("killed", file=tmp_path / "died")))
    pipeline.processor(processes=True)(process)
    with anyio.fail_after(60), pytest.raises(Halted) as caught:
        await pipeline.run()
    assert "WorkerDied: a worker process of 'processor' was killed by signal 9" in str(caught.value)


async def test_a_death_with_many_messages_is_told_and_they_are_handled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    died = tmp_path / "died"
    source = MemoryStream(killing(*["number"] * 9, "killed once", file=died))
    pipeline = pipeline_of(source)
    pipeline.processor(processes=True)(process)
    with anyio.fail_after(60):
        result = await pipeline.run()
    assert (dict(result.settled), result.failed) == ({"ok": 10}, 0)
    assert "It had 10 messages in hand, which are handled again one by one" in caplog.text


SCRIPT = """
from __future__ import annotations
import anyio
from flowstream import Batch, Drop, IterableProducer, Message, Pipeline
MODEL

source = IterableProducer([b'{"id": %d}' % n for n in range(20)])
pipeline = Pipeline("score", source, on_failure=Drop())


@pipeline.processor(processes=True, concurrency=CONCURRENCY, partition_by=lambda message: None)
def score(message: Message[Text]) -> Text:
    return message.data


@pipeline.batcher(processes=True)
def load(batch: Batch[Text]) -> None:
    assert all(type(text) is Text for text in batch.data)


GUARD
    print(dict(anyio.run(pipeline.run).settled))
"""
MODEL = """
from pydantic import BaseModel

class Text(BaseModel):
    id: int
"""


def run_program(arguments: list[str], folder: Path, **changes: str) -> tuple[str, str]:
    """What a program writes to standard output, and to standard error."""
    text = SCRIPT
    for word, change in changes.items():
        text = text.replace(word, change)
    program = folder / "shop" / "score.py"
    program.parent.mkdir()
    program.write_text(text)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "models.py").write_text(MODEL)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout, done.stderr


GUARDED = 'if __name__ == "__main__":'
UNGUARDED = "if True:"


@pytest.mark.parametrize(
    ("arguments", "model"),
    [(["shop/score.py"], MODEL), (["-m", "shop.score"], "from .models import Text")],
    ids=["file", "module"],
)
def test_a_program_declares_handlers_and_data_itself(
    arguments: list[str], model: str, tmp_path: Path
) -> None:
    said, log = run_program(arguments, tmp_path, MODEL=model, CONCURRENCY="2", GUARD=GUARDED)
    assert (said, log) == ("{'ok': 20}\n", "")


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_a_program_that_starts_itself_again_in_its_processes_ends(
    concurrency: str, tmp_path: Path
) -> None:
    """It started processes without end, each of which imported it and started more."""
    said, log = run_program(
        ["shop/score.py"], tmp_path, MODEL=MODEL, CONCURRENCY=concurrency, GUARD=UNGUARDED
    )
    assert said == ""
    *_, last = log.splitlines()
    assert last.startswith(
        "flowstream.errors.HandlerNotImported: pipeline 'score' > processor > processes=True: "
        "a worker process cannot import score: ConfigurationError: pipeline 'score' is started"
    )
    assert last.endswith('write `if __name__ == "__main__":` before what starts it')


def test_an_interactive_session_declares_no_handler_of_processes(tmp_path: Path) -> None:
    said, log = run_program(["-"], tmp_path, MODEL=MODEL, CONCURRENCY="1", GUARD=GUARDED)
    assert said == ""
    assert "score is declared in an interactive session" in log.splitlines()[-1]


@pytest.mark.parametrize("stage", ["processor", "load"])
async def test_no_message_fails_for_a_handler_that_processes_cannot_import(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As below a decorator: the function of that name in the module is another one."""
    source = MemoryStream(doing("return", "return", "return"))
    pipeline = pipeline_of(source, on_failure=Drop(), retry=Retry(3))
    if stage == "processor":
        pipeline.processor(processes=True, concurrency=2)(process)
    else:
        pipeline.processor(keep)
        pipeline.batcher("load", size=1, processes=True)(load)
    monkeypatch.setattr(computing, stage.replace("processor", "process"), keep)
    with anyio.fail_after(60), pytest.raises(HandlerNotImported, match=f"> {stage} > .*import"):
        await pipeline.run()
    assert source.stored == {}
