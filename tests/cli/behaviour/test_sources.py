"""What ends a run from outside of its messages has an exit code of its own, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import flowstream

FAILING = """
from flowstream import IterableProducer, Message, Pipeline

def items():
    for n in range(2500):
        if n == 2300:
            raise OSError("the source has gone")
        yield n

pipeline = Pipeline("numbers", IterableProducer(items()))

@pipeline.processor
async def handle(message: Message) -> None:
    with open("handled.txt", "a") as file:
        file.write(f"{message.data}\\n")
"""


def test_a_source_that_fails_ends_the_run_with_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(FAILING)
    result = flowstream("run", "source", cwd=tmp_path)
    assert result.code == 26, result.err
    assert (tmp_path / "handled.txt").read_text().split() == [str(n) for n in range(2300)]
    assert "failed after 2,300 messages: OSError: the source has gone" in result.err
    assert "Traceback" not in result.err


INTERRUPTED = """
from flowstream import IterableProducer, Message, Pipeline

pipeline = Pipeline("numbers", IterableProducer(range(10)))

@pipeline.processor
async def handle(message: Message) -> None:
    raise {error}
"""


@pytest.mark.parametrize(
    "error", ["KeyboardInterrupt", 'BaseExceptionGroup("g", [OSError("x"), KeyboardInterrupt()])']
)
def test_an_interrupt_in_a_handler_ends_the_command_with_130(tmp_path: Path, error: str) -> None:
    (tmp_path / "source.py").write_text(INTERRUPTED.format(error=error))
    result = flowstream("run", "source", cwd=tmp_path)
    assert result.code == 130, result.err
    assert "Traceback" not in result.err
