"""What a run leaves on the terminal, and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.running.ending import report_run
from flowstream.cli.workers.results import Ended
from flowstream.errors import StreamDoesNotExist
from tests.cli.command import Started

HALTS = """
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("shop", IterableProducer(iter(range(3))))

@pipeline.processor
async def work(message: Message) -> None:
    message.fail("no stock")
"""


def code_of(capsys: pytest.CaptureFixture[str], **values: Any) -> tuple[int, str, str]:
    """The exit code, and what was printed as output and as errors."""
    with pytest.raises(typer.Exit) as caught:
        report_run(Ended(**values), as_json=False)
    printed = capsys.readouterr()
    return caught.value.exit_code, printed.out, printed.err


def test_a_run_without_an_error_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(capsys) == (ExitCode.OK, "", "")


def test_the_first_error_decides_and_each_text_is_reported_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = [StreamDoesNotExist("orders: gone"), StreamDoesNotExist("orders: gone")]
    code, out, err = code_of(capsys, errors=[*gone, ValueError("another")])
    assert (code, out) == (ExitCode.STREAM_MISSING, "")
    assert err.count("orders: gone") == 1
    assert "another" in err


def test_a_run_that_was_forced_says_what_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = code_of(capsys, errors=[StreamDoesNotExist("orders: gone")], forced=True)
    assert code == ExitCode.FORCED
    assert "messages that are not settled are delivered again" in err


def test_a_pipeline_that_never_ran_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = code_of(capsys, unopened={"orders": "stopped"})
    assert (code, out) == (ExitCode.OK, "orders: stopped before it was running\n")


def test_a_run_whose_output_nobody_reads_ends_with_its_code(tmp_path: Path) -> None:
    """`flowstream run shop | head -1` ended well, whatever had happened."""
    (tmp_path / "shop.py").write_text(HALTS)
    with Started("run", "shop", cwd=tmp_path) as run:
        run.stdout.close()
        assert run.process.wait(60) == ExitCode.HALTED
        assert b"error: pipeline 'shop' halted" in run.stderr.read()
