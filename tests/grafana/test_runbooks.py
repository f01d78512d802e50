"""The commands of the runbooks are commands, with options that exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from typer.main import get_command

from flowstream.cli.app import app
from tests.grafana.queries import ROOT

LINES = [
    pytest.param(line, id=f"{page}-{number}")
    for page in ("operations", "tracing")
    for number, line in enumerate(
        re.findall(
            r"^\$ (?:\S+ )?(flowstream .*)$",
            (ROOT / "docs" / f"{page}.md").read_text(),
            re.MULTILINE,
        )
    )
]


@pytest.mark.parametrize("line", LINES)
def test_the_command_line_takes_it(line: str) -> None:
    _, *words = shlex.split(line)
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", ()):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), line
    command.make_context("flowstream", words)
