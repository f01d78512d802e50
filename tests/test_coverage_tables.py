"""Every test that a table in docs/coverage-*.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLES = sorted((ROOT / "docs").glob("coverage-*.md"))
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_every_named_test_exists(table: Path) -> None:
    named = NAMED.findall(table.read_text())
    assert named, f"{table.name} names no tests"
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists()
        or (name and not re.search(rf"\b(def|class) {name}\b|^{name} =", _text(file), re.M))
    ]
    assert missing == []


def _text(file: str) -> str:
    return (ROOT / file).read_text()
