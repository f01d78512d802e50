"""The glossary in ARCHITECTURE.md: what it names exists, and no other word is used for the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT

RETIRED = {
    "lane": "source partition",
    "lanes": "source partitions",
    "disposal": "failure policy",
    "disposer": "failure policy, opened for a run",
    "lineup": "batch scheduler",
    "agenda": "timer queue",
    "clockwork": "timers",
    "sub batch": "sub-entry",
    "sub batches": "sub-entries",
    "goodbye": "Close",
    "farewell": "Close",
    "for ever": "endlessly",
    "mend": "fix",
    "mended": "fixed",
    "give a text": "expected a string",
    "anew": "again",
    "told": "reported, logged, raised",
    "outbox": "send buffer",
    "disposing": "awaiting the policy",
    "for good": "permanently",
    "cannot mean": "what is valid",
    "hand on": "pass on",
    "hands on": "passes on",
}
"""Words that were used once, and the glossary's or plain English for them."""
READ = ("docs", "flowstream", "pipelines", "grafana", "README.md", "CONTRIBUTING.md")
KINDS = {".py", ".md", ".html"}
EXEMPT = {"docs/coverage-client.md", "docs/coverage-pipeline.md"}
"""Tables of tests, whose names are quoted."""


def rows() -> list[list[str]]:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    glossary = text.partition("## Glossary")[2].partition("\n## ")[0]
    return [line.strip("|").split("|") for line in glossary.splitlines() if line.startswith("| ")]


def files() -> Iterator[Path]:
    for name in READ:
        path = ROOT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (
            file
            for file in found
            if file.suffix in KINDS and str(file.relative_to(ROOT)) not in EXEMPT
        )


def words_of(line: str) -> str:
    """The words of a line, those in `snake_case`, `CamelCase` and kebab-case apart."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line)
    return " " + " ".join(re.findall(r"[A-Za-z]+", apart)).lower() + " "


def retired(line: str) -> list[str]:
    words = words_of(line)
    return [word for word in RETIRED if f" {word} " in words]


def test_every_name_in_the_glossary_is_in_the_code() -> None:
    names = {name for row in rows() for name in re.findall(r"`(\w+)`", row[-1])}
    assert len(names) > 20
    code = "\n".join(file.read_text() for file in (ROOT / "flowstream").rglob("*.py"))
    known = set(re.findall(r"\b(?:class|def) (\w+)|\b(\w+): ", code))
    assert names - {name for pair in known for name in pair} == set()


def test_each_word_has_one_meaning() -> None:
    words = [row[0].strip() for row in rows()]
    assert len(words) == len(set(words))


def test_words_that_were_retired_are_not_used() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{number}": RETIRED[word]
        for file in files()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for word in retired(line)
    }
    assert found == {}, "the glossary in ARCHITECTURE.md has a word for this"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("def _open_lane(self, partition):", ["lane"]),
        ("class SubBatches:", ["sub batches"]),
        ("It runs for ever.", ["for ever"]),
        ("a plane, a planet and a commander", []),
    ],
)
def test_retired_words_are_found(line: str, words: list[str]) -> None:
    assert retired(line) == words
