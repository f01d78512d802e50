"""Help: quick, complete, with examples that are real commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from flowstream.cli.parser.group import first_sentence
from tests.cli.command import Terminal, environment, flowstream
from tests.cli.tree import Words, commands, leaves

COMMANDS = [words for words, _ in commands()]
LEAVES = [*leaves()]
IDS = [" ".join(words) for words, _ in LEAVES]

WITHOUT_JSON = {
    ("new",): "it writes files, and prints notes of them",
    ("broker",): "it runs until it is stopped, and prints notes only",
    ("streams", "create"): "it prints what was done to each stream",
    ("streams", "delete"): "it prints what was done to each stream",
    ("super-streams", "create"): "it prints what was done",
    ("super-streams", "delete"): "it prints what was done",
    ("dead-letters", "purge"): "it prints a note of what was purged",
    ("workers", "restart"): "it prints a note of each worker that was replaced",
    ("dashboards", "export"): "it writes files, and prints notes of them",
}
"""Commands that have no result to print, and why."""
SLOW = {"anyio", "asyncio", "pydantic", "prometheus_client", "rich", "sqlite3", "uvloop"}
"""Modules that take long to import."""


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=IDS)
def test_what_has_output_has_json(words: Words, command: Any) -> None:
    options = {name for option in command.params for name in option.opts}
    assert "--json" in options or words in WITHOUT_JSON


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=IDS)
def test_everything_is_explained(words: Words, command: Any) -> None:
    texts = [command.help, *(option.help for option in command.params if not option.hidden)]
    assert all(texts), f"something has no help: {texts}"
    assert not re.search(r"\[[a-z]", "".join(texts)), "on a terminal brackets are markup"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_that_name_the_command(command: tuple[str, ...]) -> None:
    result = flowstream(*command, "--help")
    assert result.code == 0
    assert "\x1b" not in result.out
    lines = [line.strip() for line in result.out.partition("Examples:")[2].splitlines()]
    examples = [line for line in lines if line]
    assert examples
    for example in examples:
        words = shlex.split(example)
        start = words.index("flowstream")
        assert tuple(words[start + 1 : start + 1 + len(command)]) == command


def test_help_loads_nothing_that_takes_long() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "flowstream", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(None))
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "flowstream.cli.app" in loaded
    rooms = {
        f"flowstream.{room}" for room in ("broker", "client", "connectors", "monitor", "pipeline")
    }
    assert not loaded & (SLOW | rooms)


@pytest.mark.slow
def test_the_help_of_no_command_imports_its_work() -> None:
    """All of them in one process, which then has what any of them imports."""
    program = (
        "import contextlib, json, sys; from flowstream.cli.app import app\n"
        "with contextlib.redirect_stdout(None):\n"
        "    for words in json.load(sys.stdin):\n"
        "        app([*words, '--help'], standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(COMMANDS),
        capture_output=True,
        text=True,
        env=environment(None),
        check=True,
    )
    loaded = {*done.stdout.split()}
    assert {f"flowstream.cli.usage.{it}" for it in ("lag", "run", "dead_letters")} <= loaded
    assert not [it for it in loaded if it.startswith("flowstream.cli.commands")]
    assert not loaded & SLOW - {"pydantic"}  # Typer itself imports it for repeatable options
    rooms = {it.split(".")[1] for it in loaded if it.startswith("flowstream.")}
    assert rooms <= {"cli", "checks", "errors", "schema", "texts", "tls", "version"}


def test_on_a_terminal_help_is_drawn_and_no_color_is_honoured() -> None:
    with Terminal("--help") as coloured:
        assert coloured.end() == 0
    assert b"\x1b[1" in coloured.raw
    assert "╭" in coloured.screen
    with Terminal("--help", env={"NO_COLOR": "1"}) as plain:
        assert plain.end() == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", plain.raw)


@pytest.mark.parametrize("command", [("run",), ("doctor",), ("offsets", "reset")], ids=" ".join)
def test_on_eighty_columns_nothing_is_cut_off(command: tuple[str, ...]) -> None:
    with Terminal(*command, "--help", env={"COLUMNS": "80"}) as terminal:
        assert terminal.end() == 0
    assert "…" not in terminal.screen
    assert "rabbitmq-stream://user:password@host:port/vhost" in terminal.screen
    assert "<bool>" not in terminal.screen


def words_of(text: str) -> str:
    """A text without what a table breaks it with."""
    return re.sub(r"[\s│╭╮╰╯─]+", "", text)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "command"), [*commands()], ids=map(" ".join, COMMANDS))
def test_every_description_is_whole(words: Words, command: Any) -> None:
    """On a terminal and in a pipe: of the command, of its options, and of the commands below it."""
    env = {"COLUMNS": "80"}
    with Terminal(*words, "--help", env=env) as terminal:
        assert terminal.end() == 0
    children = getattr(command, "commands", {}).values()
    told = [option.help for option in command.params if option.name != "help"]
    told += [first_sentence(child.help) for child in children]
    for text in (terminal.screen, flowstream(*words, "--help", env=env).out):
        assert "…" not in text
        assert all(words_of(each) in words_of(text) for each in told if each), text


def test_the_version_is_shown() -> None:
    assert re.fullmatch(r"flowstream \d+\.\d+\.\d+\n", flowstream("--version").out)


def test_a_wrong_line_is_exit_code_two() -> None:
    result = flowstream("rnu")
    assert result.code == 2
    assert "No such command 'rnu'" in result.err
