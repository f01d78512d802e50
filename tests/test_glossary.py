"""The glossary in ARCHITECTURE.md names what the code has."""

from __future__ import annotations

import re

from tests.documents import ROOT


def test_every_name_in_the_glossary_is_in_the_code() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    glossary = text.partition("## Glossary")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in glossary.splitlines() if line.startswith("| ")]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row[-1])}
    assert len(names) > 20
    code = "\n".join(file.read_text() for file in (ROOT / "flowstream").rglob("*.py"))
    known = set(re.findall(r"\b(?:class|def) (\w+)|\b(\w+): ", code))
    assert names - {name for pair in known for name in pair} == set()


def test_each_word_has_one_meaning() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    glossary = text.partition("## Glossary")[2].partition("\n## ")[0]
    words = [line.split("|")[1].strip() for line in glossary.splitlines() if line.startswith("| ")]
    assert len(words) == len(set(words))
