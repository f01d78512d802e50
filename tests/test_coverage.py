"""The pages that say which test shows what (docs/coverage-*.md) name tests that exist, and brokers
that those tests run on."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("coverage-*.md"))
CLIENT = ROOT / "docs" / "coverage-client.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
SINGLE = {"3.10", "4.0", "4.3"}
FIXTURES = {"broker": {"embedded", *SINGLE}, "rabbitmq": SINGLE, "cluster": {"cluster"}}


@cache
def names_in(file: str) -> set[str]:
    """Its functions and classes, and what it assigns at the top (state machines' test cases)."""
    tree = ast.parse((ROOT / file).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    targets = [
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    ]
    return defined | {target.id for target in targets if isinstance(target, ast.Name)}


@cache
def brokers_of(file: str) -> dict[str, set[str]]:
    """The tests of a file, and the brokers that each is run on."""
    found = {}
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = {argument.arg for argument in node.args.args}
            if file.startswith("tests/client/"):
                arguments = set()  # their `cluster` is a scripted one
            brokers = [brokers for name, brokers in FIXTURES.items() if name in arguments]
            found[node.name] = set().union(*brokers)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_exists(page: Path) -> None:
    named = NAMED.findall(page.read_text())
    assert named
    assert [file for file, _ in named if not (ROOT / file).exists()] == []
    assert [f"{file}::{name}" for file, name in named if name and name not in names_in(file)] == []


def test_every_row_of_the_client_is_seen_where_it_says() -> None:
    wrong = []
    for line in CLIENT.read_text().splitlines():
        if not (line.startswith("|") and TEST.search(line)):
            continue
        told = set(line.split("|")[-2].split())
        seen = set().union(*(brokers_of(file)[test] for file, test in TEST.findall(line)))
        if not told <= seen or (seen and not told):
            wrong.append(f"{line[:60]}... says {sorted(told)}, is seen on {sorted(seen)}")
    assert wrong == []


def test_the_client_page_has_every_command_and_every_pitfall() -> None:
    text = CLIENT.read_text()
    commands, pitfalls = text.split("## Features")[0], text.split("## Pitfalls")[1]
    first = re.compile(r"^\| (\d+) \|", re.MULTILINE)
    assert sorted({int(number) for number in first.findall(commands)}) == list(range(1, 32))
    assert [int(number) for number in first.findall(pitfalls)] == list(range(1, 20))
