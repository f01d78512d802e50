"""The runbooks name commands, options, dashboards and panels that exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from flowstream.cli.app import command_tree
from tests.grafana.queries import ROOT, dashboards

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
    command: Any = command_tree()
    while words and words[0] in getattr(command, "commands", ()):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), line
    command.make_context("flowstream", words)


def test_what_the_runbooks_look_at_is_on_a_dashboard() -> None:
    page = (ROOT / "docs" / "operations.md").read_text().partition("\n## Runbooks\n")[2]
    named = {
        " ".join(name.split()) for name in re.findall(r"(?<!\*)\*([A-Za-z][^*]+)\*(?!\*)", page)
    }
    titles = {panel["title"] for each in dashboards().values() for panel in each["panels"]}
    titles |= {each["title"].partition(": ")[2] for each in dashboards().values()}
    assert len(named) > 15
    assert {name for name in named if name.lower() not in {it.lower() for it in titles}} == {
        "Resume",  # a button of the live page
    }
