"""What every command is tested for: one row for each, in the test file of the command.

`ROWS` in tests/cli/commands/test_NAME.py has the command's words and its row. The tests of all
commands read them here (test_every_command.py, test_interrupts.py, test_usage.py).
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path

from tests.cli.tree import Words

TABLE = "──"


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot do, how it ends, and what is said then."""

    line: str
    code: int
    says: str


@dataclass(frozen=True, slots=True)
class Row:
    """A command's words after its name, and what is to be seen; patterns are regular expressions.

    `drawn` is seen on a terminal, and never in a pipe. `document` is in the JSON of a command that
    has `--json`. A command that `asks` is answered with yes, and told `--yes` where nobody can
    answer. One that is `endless` gets a Ctrl-C when all is seen, on its output ("out") or standard
    error ("err").
    """

    line: str
    shows: str
    bad: Bad
    drawn: str = ""
    document: str = ""
    asks: str = ""
    endless: str = ""
    code: int = 0
    wide: bool = False
    """Whether its table has names that other tests have given, however long they are."""
    alone: bool = False
    """Whether it needs no broker."""
    waiting: str | None = None
    """Words after its name with which it waits for a broker; None for a command without one."""


LIST = Bad("--management ftp://x", 2, "--management: the scheme must be http:// or")
MISSING = '"no-such-stream": the stream does not exist; create it first'


@functools.cache
def rows() -> dict[Words, Row]:
    """The rows of all commands."""
    found: dict[Words, Row] = {}
    for file in sorted((Path(__file__).parent / "commands").glob("test_*.py")):
        found |= importlib.import_module(f"tests.cli.commands.{file.stem}").ROWS
    return found
