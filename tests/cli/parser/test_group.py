"""The table of commands: complete, in agreement with the commands, and imported only when used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowstream.cli import usage
from flowstream.cli.app import COMMANDS
from flowstream.cli.parser.group import Entry
from tests.cli.command import environment

FILES = {file.stem for file in Path(usage.__path__[0]).glob("[!_]*.py")}


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_table_says_what_the_command_says(entry: Entry) -> None:
    command = entry.load()
    assert command.name == entry.name
    assert command.short_help == entry.help


def test_every_file_of_commands_is_in_the_table() -> None:
    assert {entry.module.rpartition(".")[2] for entry in COMMANDS} == FILES


@pytest.mark.parametrize("line", ["--help", "--version", "rnu"])
def test_no_command_is_imported_before_it_is_used(line: str) -> None:
    run = [sys.executable, "-X", "importtime", "-m", "flowstream", line]
    done = subprocess.run(run, capture_output=True, text=True, env=environment(None))
    loaded = {words.rpartition("|")[2].strip() for words in done.stderr.splitlines()}
    assert "flowstream.cli.app" in loaded
    assert not [name for name in loaded if name.startswith("flowstream.cli.usage")]
