"""Signals to the whole process group drain a run with worker processes: nothing is repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.command import Started, wait_until

pytestmark = pytest.mark.slow  # each starts an interpreter and two worker processes

SHOP = """
import os, time
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("shop", IterableProducer(iter(range(1000))), max_in_flight=8)

@pipeline.processor(processes=True, concurrency=2, max_demand=2)
def work(message: Message) -> None:
    with open("handled.txt", "a") as file:
        file.write(f"{message.data} {os.getpid()}\\\\n")
    time.sleep(0.05)
    with open("done.txt", "a") as file:
        file.write(f"{message.data}\\\\n")
""".replace("\\\\n", "\\n")


def group_of(run: Started) -> int:
    process = run.process
    assert isinstance(process, subprocess.Popen)
    return process.pid  # of a session of its own


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def pids(folder: Path) -> set[int]:
    return {int(line.split()[1]) for line in (folder / "handled.txt").read_text().splitlines()}


def until_handled(folder: Path, run: Started) -> None:
    """Wait until the run is in the middle of its work."""
    for _ in range(3000):
        file = folder / "done.txt"
        if file.exists() and len(file.read_text().splitlines()) >= 20:
            return
        time.sleep(0.01)
    raise AssertionError("nothing is handled")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_process_group_drains(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with Started("run", "shop", cwd=tmp_path, fresh=True) as run:
        until_handled(tmp_path, run)
        os.killpg(group_of(run), number)
        result = run.end()
    assert result.code == 0, result.err
    assert "stay unsettled" not in result.err
    handled = [line.split()[0] for line in (tmp_path / "handled.txt").read_text().splitlines()]
    done = (tmp_path / "done.txt").read_text().split()
    assert Counter(handled) == Counter(done)
    assert max(Counter(handled).values()) == 1
    assert f"{len(done)} messages" in result.out
    assert len(pids(tmp_path)) == 2  # none was killed, and replaced


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_worker_processes_import_their_handler_drains(
    tmp_path: Path, number: signal.Signals
) -> None:
    slow = """
with open("imports.txt", "a+") as file:
    file.write("x")
    file.seek(0)
    workers = len(file.read()) > 1
if workers:
    import time
    time.sleep(1)
"""
    (tmp_path / "shop.py").write_text(slow + SHOP)
    imports = tmp_path / "imports.txt"
    with Started("run", "shop", cwd=tmp_path, fresh=True) as run:
        wait_until(lambda: imports.exists() and len(imports.read_text()) == 3)
        os.killpg(group_of(run), number)
        result = run.end()
    assert result.code == 0, result.err
    assert "KeyboardInterrupt" not in result.err
    assert len(imports.read_text()) == 3  # no process was killed, and replaced
    handled = (tmp_path / "handled.txt").read_text().splitlines()
    assert f"{len(handled)} messages handled" in result.out


def test_worker_processes_end_with_the_process_of_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        SHOP.replace("time.sleep(0.05)", "time.sleep(0.05 + 30 * (message.data > 30))")
    )
    with Started("run", "shop", cwd=tmp_path, fresh=True) as run:
        until_handled(tmp_path, run)
        workers = pids(tmp_path)
        run.process.kill()
        run.process.wait(10)
        for _ in range(1000):
            if not any(map(lives, workers)):
                break
            time.sleep(0.01)
        assert not [each for each in workers if lives(each)]


STARTER = """
import os, signal, subprocess, time
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("starter", IterableProducer(iter(range(2))))

@pipeline.processor(processes={processes})
def work(message: Message) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with subprocess.Popen(["sleep", "1000"]) as program:
            try:
                program.send_signal(number)
                assert program.wait(10) == -number
            finally:
                program.kill()
    child = os.fork()
    if not child:
        time.sleep(100)
        os._exit(0)
    os.kill(child, signal.SIGTERM)  # at once, as a multiprocessing.Pool ends its processes
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
"""


@pytest.mark.parametrize("processes", [False, True])
def test_signals_end_what_a_handler_starts_and_not_the_run(tmp_path: Path, processes: bool) -> None:
    (tmp_path / "starter.py").write_text(STARTER.format(processes=processes))
    with Started("run", "starter", cwd=tmp_path, fresh=True) as run:
        result = run.end()
    assert result.code == 0, result.err
    assert "2 messages handled (2 ok)" in result.out


LASTING = """
import subprocess
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("lasting", IterableProducer(iter(range(1))))

@pipeline.processor(processes=True, timeout={timeout})
def work(message: Message) -> None:
    with subprocess.Popen(["sleep", "100"]) as program:
        open(f"program.{{program.pid}}", "w").close()
"""


def program_of(folder: Path) -> int:
    wait_until(lambda: [*folder.glob("program.*")])
    (file,) = folder.glob("program.*")
    return int(file.suffix[1:])


def test_a_program_ends_with_the_handler_that_takes_too_long(tmp_path: Path) -> None:
    """The next attempt would run beside it."""
    (tmp_path / "lasting.py").write_text(LASTING.format(timeout=1.0))
    with Started("run", "lasting", cwd=tmp_path, fresh=True) as run:
        result = run.end()
    assert "HandlerTimeout" in result.err
    program = program_of(tmp_path)
    try:
        assert not lives(program)
    finally:
        end(program)


def test_a_program_ends_with_the_process_of_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "lasting.py").write_text(LASTING.format(timeout=None))
    with Started("run", "lasting", cwd=tmp_path, fresh=True) as run:
        program = program_of(tmp_path)
        run.process.kill()
        run.process.wait(10)
        try:
            wait_until(lambda: not lives(program))
        finally:
            end(program)


def end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
