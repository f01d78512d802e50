"""Help: quick, complete, with examples that are real commands."""

from __future__ import annotations

import re
import shlex
import time

import pytest

from tests.cli.command import Terminal, flowstream

COMMANDS = [
    (),
    ("run",),
    ("new",),
    ("publish",),
    ("peek",),
    ("tail",),
    ("broker",),
    ("check",),
    ("graph",),
    ("config",),
    ("doctor",),
    ("exit-codes",),
    ("streams",),
    ("streams", "create"),
    ("streams", "delete"),
    ("streams", "list"),
    ("streams", "stats"),
    ("top",),
    ("lag",),
    ("bench",),
    ("super-streams",),
    ("super-streams", "create"),
    ("super-streams", "delete"),
    ("super-streams", "list"),
    ("super-streams", "list-partitions"),
    ("super-streams", "route"),
    ("offsets",),
    ("offsets", "get"),
    ("offsets", "set"),
    ("offsets", "reset"),
    ("dead-letters",),
    ("dead-letters", "list"),
    ("dead-letters", "show"),
    ("dead-letters", "replay"),
    ("dead-letters", "purge"),
]

GROUPS = [("streams",), ("super-streams",), ("offsets",), ("dead-letters",)]


def listed(group: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The commands a group's help lists."""
    text = flowstream(*group, "--help").out.partition("Commands:")[2].partition("Examples:")[0]
    return {(*group, name) for name in re.findall(r"^  ([a-z][a-z-]*)  ", text, re.MULTILINE)}


def test_this_list_has_every_command() -> None:
    found = listed(())
    found |= {command for group in GROUPS for command in listed(group)}
    assert found | {()} == set(COMMANDS)


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


def test_help_is_quick() -> None:
    """Best of three: the machine may be busy with something else."""
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        flowstream("--help")
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.4


def test_on_a_terminal_help_is_drawn_and_no_color_is_honoured() -> None:
    with Terminal("--help") as coloured:
        assert coloured.end() == 0
    assert b"\x1b[1" in coloured.raw
    assert "╭" in coloured.screen
    with Terminal("--help", env={"NO_COLOR": "1"}) as plain:
        assert plain.end() == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", plain.raw)


def test_exit_codes_are_listed() -> None:
    rows = flowstream("exit-codes", "--json").json
    assert [row["code"] for row in rows] == sorted({row["code"] for row in rows})
    assert {"code": 0, "meaning": rows[0]["meaning"]} == rows[0]
    text = flowstream("exit-codes").out.splitlines()
    assert text[0].split() == ["code", "meaning"]
    assert len(text) == len(rows) + 1


def test_the_version_is_shown() -> None:
    assert re.fullmatch(r"flowstream \d+\.\d+\.\d+\n", flowstream("--version").out)


def test_a_wrong_line_is_exit_code_two() -> None:
    result = flowstream("rnu")
    assert result.code == 2
    assert "No such command 'rnu'" in result.err
