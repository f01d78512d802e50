"""The pictures of the docs are what `docs/drawings/draw.py` draws from the texts beside it."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.documents import ROOT

SOURCES = sorted((ROOT / "docs" / "drawings").glob("*.txt"))
drawing = runpy.run_path(str(ROOT / "docs" / "drawings" / "draw.py"))["drawing"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_picture_is_up_to_date(source: Path) -> None:
    picture = ROOT / "docs" / "images" / f"{source.stem}.svg"
    assert picture.read_text() == drawing(source.read_text()), "python docs/drawings/draw.py"
    ElementTree.fromstring(picture.read_text())


def test_every_picture_is_shown_with_what_it_says() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    for source in SOURCES:
        assert re.search(rf"!\[[^]]{{40,}}\]\(images/{source.stem}\.svg\)", pages), source.stem


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("title t\nsize 9 9\ncircle 1 2", "unknown line"),
        ("title t\nsize 9 9\ncells 0 0 1 no", "state"),
    ],
)
def test_lines_that_cannot_be_drawn(source: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        drawing(source)
